"""Low-rank factorisation of one matrix, activation-aware or plain."""

from dataclasses import dataclass

import torch
from torch import Tensor

from compressors.linear_algebra import damped_factor

RELATIVE_DAMPING = 1e-4
"""Small: it only keeps directions that the calibration text never showed from being thrown away at no cost."""


@dataclass(frozen=True)
class Basis:
    """Left singular vectors of ``W R`` with ``R R^T = C + Lambda``: the factors of *every* rank."""

    vectors: Tensor
    """float64 ``[out, min(out, in)]``."""
    singular_values: Tensor
    """float64 ``[min(out, in)]``, descending. The damped squared error of rank ``r`` is the sum of squares
    beyond ``r``."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.vectors.nbytes + self.singular_values.nbytes


def whitened_basis(weight: Tensor, centred: Tensor, relative: float = RELATIVE_DAMPING) -> Basis:
    """Basis of the factorisation that is best for the outputs (SVD-LLM, arXiv:2403.07378, without its inverse).

    Args:
        weight: ``[out, in]``.
        centred: ``[in, in]``.
        relative: damping, see :func:`compressors.linear_algebra.damped_factor`.
    """
    factor = damped_factor(centred, relative)
    product = weight.to(factor.scale.dtype, copy=True).mul_(factor.scale) @ factor.lower
    del factor  # of wide inputs it takes as much as a layer
    return _basis(product)


def plain_basis(weight: Tensor) -> Basis:
    """Basis of the factorisation that is best for the weights (Eckart and Young)."""
    return _basis(weight.double())


def _basis(product: Tensor) -> Basis:
    """Left singular vectors through the smaller Gram matrix of ``product [out, in]``."""
    rows, columns = product.shape
    if rows <= columns:
        values, vectors = torch.linalg.eigh(product @ product.T)
        return Basis(vectors.flip(1), values.flip(0).clamp_min(0).sqrt())
    values, right = torch.linalg.eigh(product.T @ product)
    singular = values.flip(0).clamp_min(0).sqrt()
    floor = singular[0].clamp_min(torch.finfo(singular.dtype).tiny) * 1e-12
    return Basis((product @ right.flip(1)).div_(singular.clamp_min(floor)), singular)


def factorise(weight: Tensor, basis: Basis, rank: int) -> tuple[Tensor, Tensor]:
    """Return ``left [out, rank]`` and ``right [rank, in]``, float64, whose product is ``U_r U_r^T W``.

    The singular values are split evenly between the factors, so that neither the latent nor the weights of one factor
    carry the whole spread, which quantisation would pay for.
    """
    vectors, singular = basis.vectors[:, :rank], basis.singular_values[:rank]
    scale = singular.clamp_min(singular[0] * 1e-6).sqrt() if float(singular[0]) > 0 else torch.ones_like(singular)
    return vectors * scale, (vectors.T @ weight.double()) / scale[:, None]
