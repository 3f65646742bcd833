"""Rounding weights to integers, and choosing the range of an activation: arrays in, arrays out."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressors.methods.rounding import largest_value

Float = NDArray[np.float32]

_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Range:
    """The values of an activation that 8 bits are spread over; 0 is always among them.

    Attributes:
        low: The smallest.
        high: The largest.
        divisor: ``[channels]``: the activation is divided by it before it is rounded, and the weights that read it are
            multiplied by it (SmoothQuant, arXiv 2211.10438); ``None``: it is rounded as it is.
    """

    low: float
    high: float
    divisor: Float | None = None

    def affine(self) -> tuple[np.float32, np.uint8]:
        """Return ``(scale, zero point)`` of the uint8 grid over the range; 0 lies exactly on the grid."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = np.float32(max((high - low) / 255.0, _SMALLEST))
        return scale, np.uint8(np.clip(np.rint(-low / scale), 0, 255))


def quantize_per_channel(weight: Float, bits: int = 8) -> tuple[NDArray[np.int8], Float]:
    """Round ``weight`` to int8 with the max-abs scale of each output channel.

    Args:
        weight: ``[out, in]``, float32.
        bits: 8, or 7 for values in -63..63.

    Returns:
        ``(values [out, in] int8 in -127..127, scales [out] float32)`` with ``weight`` close to
        ``values * scales[:, None]``. A channel of zeros gets the scale 1.
    """
    limit = largest_value(bits)
    scale = _scale(np.abs(weight).max(axis=1, initial=0.0), limit)
    return _round(weight, scale[:, None], limit).astype(np.int8), scale


@dataclass(frozen=True)
class BlockQuantized:
    """Weights ``[out, in]`` in blocks of ``size`` along the inputs, padded with zeros to full blocks.

    Attributes:
        values: ``[out, blocks, size]``, integers in ``-limit..limit``, int8.
        scales: ``[out, blocks]``, float32.
        bits: 4 or 8.
    """

    values: NDArray[np.int8]
    scales: Float
    bits: int

    @property
    def size(self) -> int:
        """Weights in a block."""
        return int(self.values.shape[2])

    def packed(self) -> NDArray[np.uint8]:
        """Unsigned values as ``MatMulNBits`` stores them: ``[out, blocks, size * bits / 8]``, low nibble first."""
        unsigned = (self.values.astype(np.int16) + (1 << (self.bits - 1))).astype(np.uint8)
        if self.bits == 8:
            return unsigned
        return (unsigned[..., 0::2] | unsigned[..., 1::2] << 4).astype(np.uint8)


def quantize_in_blocks(weight: Float, bits: int, size: int) -> BlockQuantized:
    """Round ``weight`` ``[out, in]`` symmetrically in blocks along the inputs; weights on such a grid stay as they are.

    Args:
        weight: float32 weights.
        bits: 4 or 8.
        size: Weights in a block: a power of two, at least 16.
    """
    outputs, inputs = weight.shape
    limit = largest_value(bits)
    blocks = -(-inputs // size)
    padded = np.zeros((outputs, blocks * size), np.float32)
    padded[:, :inputs] = weight
    grouped = padded.reshape(outputs, blocks, size)
    scale = _scale(np.abs(grouped).max(axis=2, initial=0.0), limit)
    return BlockQuantized(_round(grouped, scale[..., None], limit).astype(np.int8), scale, bits)


def quantize_rows(table: Float) -> tuple[NDArray[np.int8], Float]:
    """Round an embedding table ``[rows, width]`` to int8 with one scale for each row, ``[rows, 1]``."""
    values, scale = quantize_per_channel(table)
    return values, scale[:, None]


def _scale(largest: NDArray[np.float32], limit: int) -> Float:
    scale: Float = np.where(largest > 0, largest / limit, 1.0).astype(np.float32)
    return scale


def _round(values: Float, scale: Float, limit: int) -> Float:
    rounded: Float = np.clip(np.rint(values / scale), -limit, limit)
    return rounded
