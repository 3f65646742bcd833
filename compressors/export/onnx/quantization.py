"""Symmetric int8 weights, one scale per output channel."""

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]


def quantize_per_channel(weight: Float) -> tuple[NDArray[np.int8], Float]:
    """Round ``weight`` to int8 with the max-abs scale of each output channel.

    Args:
        weight: ``[out, in]``, float32.

    Returns:
        ``(values [out, in] int8 in -127..127, scales [out] float32)`` with ``weight`` close to
        ``values * scales[:, None]``. A channel of zeros gets the scale 1.
    """
    largest = np.abs(weight).max(axis=1, initial=0.0)
    scale = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
    values = np.clip(np.rint(weight / scale[:, None]), -127, 127).astype(np.int8)
    return values, scale
