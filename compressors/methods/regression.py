"""Ridge regression of one matrix on new inputs, towards the weights that it has, kept as far as held-out rows agree.

``min ||T - X W'^T - 1 b'^T||^2 + ||(W' - W) Lambda^(1/2)||^2`` over the rows that are fitted; then the step from ``W``
to the solution is shortened to what is best for the rows that are held out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.linear_algebra import damped_factor
from compressors.linear_algebra import solve_right

DAMPINGS = (1e-2, 1e-1, 1.0)
"""Relative dampings that are tried; the held-out rows choose."""
LEAST_ROWS = 16
"""With fewer rows on either side nothing is fitted."""


@dataclass
class Pairs:
    """Sums over rows of inputs ``x`` and targets ``t``: all that a regression needs to know about them.

    Attributes:
        gram: ``X^T X``, float64 ``[in, in]``.
        cross: ``T^T X``, float64 ``[out, in]``.
        inputs: ``X^T 1``, float64 ``[in]``.
        targets: ``T^T 1``, float64 ``[out]``.
        energy: ``||T||^2``.
        count: Sum of the rows' weights.
    """

    gram: Tensor
    cross: Tensor
    inputs: Tensor
    targets: Tensor
    energy: float = 0.0
    count: float = 0.0

    @classmethod
    def empty(cls, inputs: int, outputs: int) -> "Pairs":
        """Return the sums over no rows."""
        return cls(
            torch.zeros(inputs, inputs, dtype=torch.float64),
            torch.zeros(outputs, inputs, dtype=torch.float64),
            torch.zeros(inputs, dtype=torch.float64),
            torch.zeros(outputs, dtype=torch.float64),
        )

    def add(self, inputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Take in rows, float32 ``[n, in]`` and ``[n, out]``, optionally with weights ``[n]``."""
        weighted = inputs if weights is None else inputs * weights[:, None]
        self.gram += weighted.T @ inputs
        self.cross += targets.T @ weighted
        self.inputs += weighted.sum(0, dtype=torch.float64)
        scaled = targets if weights is None else targets * weights[:, None]
        self.targets += scaled.sum(0, dtype=torch.float64)
        self.energy += float((scaled * targets).sum(dtype=torch.float64))
        self.count += float(len(inputs) if weights is None else weights.sum())

    def centred(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the centred Gram ``[in, in]`` and cross matrices ``[out, in]`` and the means ``[in]``, ``[out]``."""
        inputs, targets = self.inputs / self.count, self.targets / self.count
        gram = self.gram.addr(inputs, inputs, alpha=-self.count)
        return gram, self.cross.addr(targets, inputs, alpha=-self.count), inputs, targets

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Return ``||T - X W^T - 1 b^T||^2`` for float64 ``weight [out, in]`` and ``bias [out]``."""
        fitted = ((weight @ self.gram) * weight).sum() + 2 * (weight @ self.inputs) @ bias
        fitted = fitted + self.count * bias @ bias
        return float(self.energy - 2 * ((weight * self.cross).sum() + bias @ self.targets) + fitted)


@dataclass(frozen=True)
class Fit:
    """New weights.

    Attributes:
        weight: Float64 ``[out, in]``.
        bias: Float64 ``[out]``.
        before: Squared error on the held-out rows with the weights as they were.
        after: The same with the new ones; never above ``before``.
    """

    weight: Tensor
    bias: Tensor
    before: float
    after: float


def refit(weight: Tensor, bias: Tensor, fitted: Pairs, held: Pairs, *, bias_only: bool = False) -> Fit:
    """Fit ``weight [out, in]`` and ``bias [out]`` to ``fitted``, as far as ``held`` confirms it.

    Args:
        weight: What the matrix is now; where the inputs say nothing, it stays that.
        bias: The same.
        fitted: Rows to fit.
        held: Other rows.
        bias_only: Leave the weights.
    """
    weight, bias = weight.double(), bias.double()
    before = held.error(weight, bias)
    best = Fit(weight, bias, before, before)
    if min(fitted.count, held.count) < LEAST_ROWS:
        return best
    gram, cross, inputs, targets = fitted.centred()
    candidates = [weight]
    if not bias_only:
        residual = cross - weight @ gram
        candidates += [weight + solve_right(residual, damped_factor(gram, damping)) for damping in DAMPINGS]
    for candidate in candidates:
        step, shift = candidate - weight, targets - candidate @ inputs - bias
        length = _best_length(weight, bias, step, shift, held)
        moved, moved_bias = weight + length * step, bias + length * shift
        after = held.error(moved, moved_bias)
        if after < best.after:
            best = Fit(moved, moved_bias, before, after)
    return best


def _best_length(weight: Tensor, bias: Tensor, step: Tensor, shift: Tensor, held: Pairs) -> float:
    """Return the share in [0, 1] of the step at which the held-out error, a parabola in it, is lowest."""
    slope = ((held.cross - weight @ held.gram - torch.outer(bias, held.inputs)) * step).sum()
    slope = slope + (held.targets - weight @ held.inputs - held.count * bias) @ shift
    origin = Pairs(held.gram, torch.zeros_like(held.cross), held.inputs, torch.zeros_like(held.targets), 0, held.count)
    curvature = origin.error(step, shift)
    return 0.0 if curvature <= 0 else min(1.0, max(0.0, float(slope) / curvature))
