"""Dense linear algebra that all Gram-based methods share. Pure functions, float64 unless the caller passes less.

Notation of this package. A linear layer computes ``y = W x + b`` with ``W [out, in]``. Over ``n`` attended calibration
tokens with inputs ``x`` (rows of ``X [n, in]``), ``H = X^T X`` is the Gram matrix, ``mean = X^T 1 / n``, and
``C = H - n mean mean^T`` the centred Gram matrix. ``K`` are the kept inputs and ``M`` the removed ones. Every method
without gradients minimises ``||(X - 1 mean^T) (W - W')^T||^2 = tr(D C D^T)`` with ``D = W - W'``; the bias absorbs the
mean exactly.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Damping = Literal["diagonal", "mean"]

RELATIVE_DAMPING = 1e-2
_DEAD = 1e-10
_COLUMNS = 512


@dataclass(frozen=True)
class DampedFactor:
    """``C + Lambda = D (L L^T) D`` with ``D = diag(scale)`` and ``L`` lower triangular.

    The rows of ``L`` follow the given input order, so its leading ``k x k`` block factorises the same matrix restricted
    to the first ``k`` inputs.
    """

    lower: Tensor
    """``[in, in]``."""
    scale: Tensor
    """``[in]``: square roots of the diagonal of ``C``; 1 for inputs without variance."""
    damping: float
    """Relative damping that was needed; more than asked for where the factorisation failed at first."""


def centred_gram(gram: Tensor, total: Tensor, count: int) -> Tensor:
    """Return ``C = H - s s^T / n`` for ``gram = H [in, in]`` and ``total = s = X^T 1 [in]``."""
    return gram - torch.outer(total, total) / count


def damped_factor(centred: Tensor, relative: float = RELATIVE_DAMPING, mode: Damping = "diagonal") -> DampedFactor:
    """Cholesky factor of ``C + Lambda`` after Jacobi scaling.

    Args:
        centred: ``C [in, in]``, symmetric and, up to rounding, positive semi-definite; float32 takes half the memory,
            and is factorised in float64 as well.
        relative: ``rho``; raised step by step where the factorisation fails.
        mode: ``diagonal``: ``Lambda_j = rho C_jj`` (Levenberg-Marquardt), unaffected by a few huge channels; ``mean``:
            ``Lambda_j = rho mean(diag C)``, as in the reference code of GPTQ and SparseGPT.

    Inputs without variance are decoupled from the others: their weight cannot change the centred output.
    """
    diagonal = centred.diagonal().double()
    dead = diagonal <= _DEAD * diagonal.median().clamp_min(torch.finfo(torch.float64).tiny)
    scale = torch.where(dead, torch.ones_like(diagonal), diagonal.clamp_min(0).sqrt())
    inverse = torch.where(dead, torch.zeros_like(scale), scale.reciprocal())
    base = torch.ones_like(scale)
    if mode == "mean" and not bool(dead.all()):
        base = torch.where(dead, base, diagonal[~dead].mean() * inverse.square())

    def scaled(damping: float) -> Tensor:
        """Column by column, as LAPACK wants it."""
        matrix = centred.to(inverse.dtype, copy=True).mul_(inverse).mul_(inverse[:, None]).mT
        matrix.diagonal().add_(dead + damping * base)
        return matrix

    for factor in (1.0, 3.0, 10.0, 100.0):
        lower, info = scaled(factor * relative), torch.empty((), dtype=torch.int32)
        torch.linalg.cholesky_ex(lower, out=(lower, info))  # in place: of a wide input it takes as much as a layer
        if int(info) == 0 and bool(torch.isfinite(lower.diagonal()).all()):
            return DampedFactor(lower, scale, factor * relative)
    values, vectors = torch.linalg.eigh(scaled(0.0))
    floor = values.clamp_min(1e-8 * float(values.max().clamp_min(1.0))) + max(relative, 1e-8)
    return DampedFactor(torch.linalg.cholesky((vectors * floor) @ vectors.T), scale, max(relative, 1e-8))


def solve_right(matrix: Tensor, factor: DampedFactor) -> Tensor:
    """Return ``matrix (C + Lambda)^-1`` for ``matrix [rows, in]``."""
    half = divide_by_lower(matrix / factor.scale, factor.lower, transposed=True)
    return divide_by_lower(half, factor.lower).div_(factor.scale)


def inverse(factor: DampedFactor) -> Tensor:
    """Return ``(C + Lambda)^-1``."""
    return torch.cholesky_inverse(factor.lower).div_(factor.scale).div_(factor.scale[:, None])


def upper_inverse_factor(centred: Tensor, relative: float = RELATIVE_DAMPING, mode: Damping = "diagonal") -> Tensor:
    """Return upper triangular ``U`` with ``(C + Lambda)^-1 = U^T U``: what GPTQ and SparseGPT sweep with.

    With ``J`` the reversal permutation and ``L' = chol(J (C + Lambda) J)``: ``U = (J L' J)^-1``. Neither an inverse nor
    a second factorisation of it is formed.
    """
    reversed_factor = damped_factor(centred.flip(0, 1), relative, mode)
    upper = (reversed_factor.lower * reversed_factor.scale[:, None]).flip(0, 1)
    identity = torch.eye(upper.shape[0], dtype=upper.dtype)
    factor: Tensor = torch.linalg.solve_triangular(upper, identity, upper=True)
    return factor


def divide_by_lower(matrix: Tensor, lower: Tensor, *, transposed: bool = False) -> Tensor:
    """Return ``matrix L^-1``, or ``matrix L^-T``, for lower triangular ``L``, which may be a block of a larger matrix.

    Stretch of columns by stretch, so that only small blocks are copied: torch's own solvers copy the whole of such an
    ``L``, which of a wide input takes as much as a layer.

    Args:
        matrix: ``[rows, in]``.
        lower: ``[in, in]``.
        transposed: Divide by ``L^T``.
    """
    solved = torch.empty(matrix.shape, dtype=matrix.dtype)
    size = lower.shape[0]
    starts = range(0, size, _COLUMNS)
    for start in starts if transposed else reversed(starts):
        stop = min(start + _COLUMNS, size)
        done = slice(0, start) if transposed else slice(stop, size)
        across = lower[start:stop, done].mT if transposed else lower[done, start:stop]
        block = lower[start:stop, start:stop].mT if transposed else lower[start:stop, start:stop]
        rest = matrix[:, start:stop] - solved[:, done] @ across
        solved[:, start:stop] = torch.linalg.solve_triangular(block, rest, upper=transposed, left=False)
    return solved


def times_gram(matrix: Tensor, centred: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Return ``matrix @ centred[rows][:, columns]`` in the dtype of ``matrix``; ``centred`` is copied in small parts.

    Args:
        matrix: ``[any, |rows|]``.
        centred: ``[in, in]``, in any floating-point dtype.
        rows: int64 indices; ``None``: all.
        columns: The same.
    """
    columns = torch.arange(centred.shape[1]) if columns is None else columns
    product = torch.empty(matrix.shape[0], len(columns), dtype=matrix.dtype)
    for start in range(0, len(columns), _COLUMNS):
        part = centred[:, columns[start : start + _COLUMNS]]
        part = part if rows is None else part[rows]
        product[:, start : start + _COLUMNS] = matrix @ part.to(matrix.dtype)
    return product


def reconstruction_error(difference: Tensor, centred: Tensor) -> float:
    """Return ``tr(D C D^T)`` for ``difference = D [out, in]``: the squared error of the outputs, bias refitted."""
    return float(((difference @ centred) * difference).sum())


def composed_error(weight: Tensor, kept_weight: Tensor, kept: Tensor, centred: Tensor) -> float:
    """Squared output error of any chain of methods, against the *original* weight.

    ``E = tr(W C W^T) - 2 tr(W'_K C_K: W^T) + tr(W'_K C_KK W'_K^T)``; the errors of single steps do not add up to it.

    Args:
        weight: ``W [out, in]``.
        kept_weight: ``W'_K [out, |K|]``.
        kept: indices of ``K``.
        centred: ``C [in, in]``.
    """
    energy = ((weight @ centred) * weight).sum()
    cross = ((kept_weight @ centred[kept]) * weight).sum()
    remaining = ((kept_weight @ centred[kept][:, kept]) * kept_weight).sum()
    return float(energy - 2 * cross + remaining)


def output_energy(weight: Tensor, bias: Tensor | None, centred: Tensor, mean: Tensor, count: int) -> float:
    """Return ``||X W^T + 1 b^T||^2``: the error of removing a branch with its bias."""
    offset = weight @ mean + (0 if bias is None else bias)
    return float(((weight @ centred) * weight).sum() + count * offset.square().sum())
