"""Rounding weights to a symmetric integer grid with error compensation (GPTQ).

The results are float weights that lie on the grid, with each scale's largest entry on the grid's end. Quantising them
again with ``scale = max|w| / levels`` therefore finds the same scale and the same integers.
"""

import torch
from torch import Tensor

from compressors.linear_algebra import RELATIVE_DAMPING
from compressors.linear_algebra import upper_inverse_factor

SWEEP = 128
"""Columns after which all later ones are brought up to date at once."""


def gptq(
    weight: Tensor,
    centred: Tensor,
    bits: int,
    mask: Tensor | None = None,
    relative: float = RELATIVE_DAMPING,
    *,
    size: int | None = None,
) -> Tensor:
    """Round column by column and let the later columns make up for it (GPTQ, arXiv:2210.17323).

    Args:
        weight: ``[out, in]``.
        centred: ``[in, in]``.
        bits: bit-width of the symmetric grid.
        mask: bool ``[out, in]``; entries that are false stay zero.
        relative: damping, see :func:`compressors.linear_algebra.damped_factor`.
        size: columns that share a scale, a divisor of :data:`SWEEP`; ``None``: all of them. The scale is that of the
            weights as the columns before have left them.

    Returns:
        Weights on the grid, float64 ``[out, in]``. The largest weight under each scale is rounded as it was when the
        scale was chosen, so that it still reaches the end of the grid.
    """
    current = weight.double().clone()
    levels, size = largest_value(bits), size or current.shape[1]
    kept = torch.ones_like(current) if mask is None else mask.double()
    upper = upper_inverse_factor(centred.double(), relative)
    for start in range(0, current.shape[1], SWEEP):
        stop = min(start + SWEEP, current.shape[1])
        errors = torch.zeros(current.shape[0], stop - start, dtype=current.dtype)
        for column in range(start, stop):
            if column % size == 0:
                block = slice(column, column + size)
                original = current[:, block] * kept[:, block]
                scale = _scale(original, levels)
                anchored = original.abs() >= scale[:, None] * (levels * (1 - 1e-9))
            place = column % size
            given = torch.where(anchored[:, place], original[:, place], current[:, column])
            target = (given / scale).round().clamp(-levels, levels) * scale * kept[:, column]
            error = (current[:, column] - target) / upper[column, column]
            current[:, column:stop] -= torch.outer(error, upper[column, column:stop])
            current[:, column] = target
            errors[:, column - start] = error
        current[:, stop:] -= errors @ upper[start:stop, stop:]
    return current


def nearest(weight: Tensor, bits: int, *, size: int | None = None) -> Tensor:
    """Round every weight to the nearest point of the grid; arguments as for :func:`gptq`, float64 ``[out, in]``."""
    values, levels, rounded = weight.double(), largest_value(bits), []
    width = size or values.shape[1]
    for start in range(0, values.shape[1], width):
        block = values[:, start : start + width]
        scale = _scale(block, levels)[:, None]
        rounded.append((block / scale).round().clamp(-levels, levels) * scale)
    return torch.cat(rounded, dim=1)


def largest_value(bits: int) -> int:
    """Return the end of the symmetric integer grid of ``bits`` bits."""
    return (1 << (bits - 1)) - 1


def _scale(weight: Tensor, levels: int) -> Tensor:
    """Return ``max|w| / levels`` of every row, ``[out]``; 1 for a row of zeros."""
    largest = weight.abs().amax(1)
    return torch.where(largest > 0, largest / levels, torch.ones_like(largest))
