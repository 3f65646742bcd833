"""Rounding weights to a symmetric integer grid: to nearest, or with error compensation (GPTQ).

The results are float weights that lie on the grid, with each scale's largest entry on the grid's end. Quantising them
again with ``scale = max|w| / levels`` therefore finds the same scale and the same integers.
"""

import torch
from torch import Tensor

from compressors.linear_algebra import RELATIVE_DAMPING
from compressors.linear_algebra import upper_inverse_factor

_BLOCK = 128


def channel_scale(weight: Tensor, bits: int) -> Tensor:
    """Return ``max|w| / (2^(bits - 1) - 1)`` of every output channel, ``[out, 1]``; 1 for a channel of zeros."""
    largest = weight.abs().amax(1, keepdim=True)
    return torch.where(largest > 0, largest / largest_value(bits), torch.ones_like(largest))


def round_to_nearest(weight: Tensor, bits: int) -> Tensor:
    """Round ``weight [out, in]`` to the symmetric per-channel grid of ``bits`` bits. Same dtype."""
    scale = channel_scale(weight, bits)
    return _round(weight, scale, largest_value(bits))


def gptq(
    weight: Tensor, centred: Tensor, bits: int, mask: Tensor | None = None, relative: float = RELATIVE_DAMPING
) -> Tensor:
    """Round column by column and let the later columns make up for it (GPTQ, arXiv:2210.17323).

    Args:
        weight: ``[out, in]``.
        centred: ``[in, in]``.
        bits: bit-width of the symmetric grid; the scale of a channel is that of its original weights.
        mask: bool ``[out, in]``; entries that are false stay zero.
        relative: damping, see :func:`compressors.linear_algebra.damped_factor`.

    Returns:
        Weights on the grid, float64 ``[out, in]``. The largest weight of each channel is rounded as it was given, so
        that the channel still reaches the end of the grid.
    """
    current = weight.double().clone()
    scale, levels = channel_scale(current, bits)[:, 0], largest_value(bits)
    anchored = current.abs() >= scale[:, None] * (levels * (1 - 1e-9))
    original = current.clone()
    upper = upper_inverse_factor(centred.double(), relative)
    for start in range(0, current.shape[1], _BLOCK):
        stop = min(start + _BLOCK, current.shape[1])
        errors = torch.zeros(current.shape[0], stop - start, dtype=current.dtype)
        for column in range(start, stop):
            given = torch.where(anchored[:, column], original[:, column], current[:, column])
            target = _round(given, scale, levels)
            if mask is not None:
                target = target * mask[:, column]
            error = (current[:, column] - target) / upper[column, column]
            current[:, column:stop] -= torch.outer(error, upper[column, column:stop])
            current[:, column] = target
            errors[:, column - start] = error
        current[:, stop:] -= errors @ upper[start:stop, stop:]
    return current


def largest_value(bits: int) -> int:
    """Return the end of the symmetric integer grid of ``bits`` bits."""
    return (1 << (bits - 1)) - 1


def _round(weight: Tensor, scale: Tensor, levels: int) -> Tensor:
    return (weight / scale).round().clamp(-levels, levels) * scale
