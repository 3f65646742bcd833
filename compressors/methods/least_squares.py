"""Re-solve the surviving weights of a matrix whose inputs were removed, against the Gram matrix of the dense inputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.linear_algebra import RELATIVE_DAMPING
from compressors.linear_algebra import DampedFactor
from compressors.linear_algebra import damped_factor
from compressors.linear_algebra import divide_by_lower
from compressors.linear_algebra import solve_right


def removal_update(weight: Tensor, centred: Tensor, kept: Tensor, relative: float = RELATIVE_DAMPING) -> Tensor:
    """Return the best weights of the inputs ``kept``, in closed form.

    ``W'_K = W_K + W_M C_MK (C_KK + Lambda_K)^-1``: the ridge solution towards ``W_K``. With the bias of
    :func:`refit_bias` it is the joint optimum over weights and bias (for ``relative = 0`` exactly).

    Args:
        weight: ``[out, in]``.
        centred: ``[in, in]``.
        kept: int64 ``[k]``.
        relative: damping, see :func:`compressors.linear_algebra.damped_factor`.

    Returns:
        float64 ``[out, k]``.
    """
    weight, centred = weight.double(), centred.double()
    factor = damped_factor(centred[kept][:, kept], relative)
    removed = torch.ones(weight.shape[1], dtype=torch.bool)
    removed[kept] = False
    return weight[:, kept] + solve_right(weight[:, removed] @ centred[removed][:, kept], factor)


def refit_bias(bias: Tensor | None, weight: Tensor, new_weight: Tensor, mean: Tensor, kept: Tensor | None) -> Tensor:
    """Return ``b + W mean - W'_K mean_K``: the best bias for any new weights.

    Args:
        bias: ``[out]``; ``None`` counts as zero.
        weight: the original ``[out, in]``.
        new_weight: ``[out, k]``.
        mean: mean of the dense inputs, ``[in]``.
        kept: int64 ``[k]``; ``None``: all inputs.

    Returns:
        ``[out]``, of the dtype of ``mean``.
    """
    kept_mean = mean if kept is None else mean[kept]
    shift = weight.to(mean.dtype) @ mean - new_weight.to(mean.dtype) @ kept_mean
    return shift if bias is None else bias.to(mean.dtype) + shift


@dataclass(frozen=True)
class NestedSolution:
    """The closed-form solution of *every* level along one removal order, from one factorisation.

    With the inputs sorted from most to least important, ``C + Lambda = D L L^T D``, and ``P = W D L``, the solution
    that keeps the first ``k`` inputs is ``P[:, :k] L[:k, :k]^-1 D_k^-1``: one triangular solve. Its damped error is the
    sum of squares of the remaining columns of ``P``. Both follow from ``(C + Lambda)_:K = D L_:k L_kk^T D_k``.
    """

    inputs: Tensor
    """int64 ``[in]``: inputs, most important first."""
    factor: DampedFactor
    """Of ``C`` in that order."""
    projected: Tensor
    """``P``, float64 ``[out, in]``."""

    @classmethod
    def prepare(
        cls, weight: Tensor, centred: Tensor, inputs: Tensor, relative: float = RELATIVE_DAMPING
    ) -> "NestedSolution":
        """Factorise once for ``weight [out, in]`` and ``centred [in, in]``, sorted by ``inputs``."""
        factor = damped_factor(centred[inputs][:, inputs], relative)
        return cls(inputs, factor, (weight.double()[:, inputs] * factor.scale) @ factor.lower)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.inputs.nbytes + self.factor.lower.nbytes + self.factor.scale.nbytes + self.projected.nbytes

    def keep(self, count: int) -> tuple[Tensor, Tensor]:
        """Return the ``count`` kept inputs, ascending, int64, and their weights, float64 ``[out, count]``."""
        solved = divide_by_lower(self.projected[:, :count], self.factor.lower[:count, :count])
        kept, position = self.inputs[:count].sort()
        return kept, (solved / self.factor.scale[:count])[:, position]

    def damped_errors(self) -> Tensor:
        """Damped squared error of keeping ``0 .. in`` inputs, float64 ``[in + 1]``; never increasing."""
        tail = self.projected.square().sum(0).flip(0).cumsum(0).flip(0)
        return torch.cat([tail, tail.new_zeros(1)])
