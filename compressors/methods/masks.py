"""Unstructured and 2:4 sparsity of one matrix: which weights become zero."""

from typing import Literal

import torch
from torch import Tensor

from compressors.linear_algebra import RELATIVE_DAMPING
from compressors.linear_algebra import upper_inverse_factor

Pattern = Literal["unstructured", "2:4"]

_BLOCK = 128


def magnitude_mask(weight: Tensor, sparsity: float, pattern: Pattern = "unstructured") -> Tensor:
    """Keep the largest weights of the whole matrix (of each group of four for 2:4). Bool ``[out, in]``: kept."""
    if pattern == "2:4":
        return _two_of_four(weight.abs())
    return _keep_largest(weight.abs().flatten(), sparsity).view_as(weight)


def wanda_mask(weight: Tensor, second_moment: Tensor, sparsity: float, pattern: Pattern = "unstructured") -> Tensor:
    """Keep, in each output row, the largest ``|W_ij| ||X_j||`` (Sun et al. 2023, Wanda; arXiv:2306.11695).

    Args:
        weight: ``[out, in]``.
        second_moment: diagonal of ``X^T X``, ``[in]``.
        sparsity: fraction of each row that becomes zero.
        pattern: ``2:4`` keeps two of every four consecutive inputs whatever ``sparsity`` says.

    Returns:
        Bool ``[out, in]``: kept.
    """
    score = weight.abs() * second_moment.clamp_min(0).sqrt()
    return _two_of_four(score) if pattern == "2:4" else _keep_largest(score, sparsity)


def sparsegpt(
    weight: Tensor,
    centred: Tensor,
    sparsity: float,
    pattern: Pattern = "unstructured",
    relative: float = RELATIVE_DAMPING,
    mask: Tensor | None = None,
    upper: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Zero weights column by column and let the later columns make up for it (SparseGPT, arXiv:2301.00774).

    Args:
        weight: ``[out, in]``.
        centred: ``[in, in]``.
        sparsity: fraction of each block of 128 columns that becomes zero.
        pattern: as for :func:`wanda_mask`.
        relative: damping, see :func:`compressors.linear_algebra.damped_factor`.
        mask: bool ``[out, in]``; use this mask instead of choosing one.
        upper: the factor of :func:`compressors.linear_algebra.upper_inverse_factor`, if the caller has it.

    Returns:
        New weights, float64 ``[out, in]``, and the mask, bool: kept.
    """
    current = weight.double().clone()
    upper = upper_inverse_factor(centred.double(), relative) if upper is None else upper
    kept = torch.ones_like(current, dtype=torch.bool) if mask is None else mask.clone()
    for start in range(0, current.shape[1], _BLOCK):
        stop = min(start + _BLOCK, current.shape[1])
        if mask is None:
            score = current[:, start:stop].square() / upper.diagonal()[start:stop].square()
            chosen = _two_of_four(score) if pattern == "2:4" else _keep_largest(score.flatten(), sparsity)
            kept[:, start:stop] = chosen.view_as(score)
        errors = torch.zeros(current.shape[0], stop - start, dtype=current.dtype)
        for column in range(start, stop):
            target = current[:, column] * kept[:, column]
            error = (current[:, column] - target) / upper[column, column]
            current[:, column:stop] -= torch.outer(error, upper[column, column:stop])
            current[:, column] = target
            errors[:, column - start] = error
        current[:, stop:] -= errors @ upper[start:stop, stop:]
    return current, kept


def _keep_largest(score: Tensor, sparsity: float) -> Tensor:
    """Bool mask that drops the ``int(size * sparsity)`` smallest entries along the last axis."""
    drop = int(score.shape[-1] * sparsity)
    kept = torch.ones_like(score, dtype=torch.bool)
    return kept.scatter_(-1, score.argsort(dim=-1, stable=True)[..., :drop], False)


def _two_of_four(score: Tensor) -> Tensor:
    """Bool mask that keeps two of every four consecutive entries; a rest of fewer than four is kept whole."""
    rows, columns = score.shape
    whole = columns // 4 * 4
    kept = torch.ones_like(score, dtype=torch.bool)
    kept[:, :whole] = _keep_largest(score[:, :whole].reshape(rows, -1, 4), 0.5).view(rows, whole)
    return kept
