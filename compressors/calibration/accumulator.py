"""Summing up the moments of one linear input in bounded memory."""

import torch
from torch import Tensor

from compressors.calibration.statistics import InputStatistics

_CHUNK = 4096
_CHUNK_NUMBERS = 6 * 2**20
"""Of an input wider than 1,536 channels, fewer tokens wait: 24 MiB of them."""
_BLOCK = 512
"""Rows of the symmetric products that are computed at a time, from the diagonal on."""


class Accumulator:
    """Adds up the moments of one input, chunk by chunk.

    Products are taken in float32 of values that are shifted by the first chunk's mean, and summed in float64: the shift
    keeps the centred moments exact where a channel's mean is large against its spread.
    """

    def __init__(self, width: int) -> None:
        self._chunk = min(_CHUNK, _CHUNK_NUMBERS // width)
        self._products = torch.zeros(width, width, dtype=torch.float64)
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._shift: Tensor | None = None
        self._count = 0
        self._absolute = torch.zeros(width, dtype=torch.float64)
        self._maximum = torch.zeros(width)
        self._seen = 0
        self._waiting: list[Tensor] = []

    def add(self, values: Tensor, selected: Tensor) -> None:
        """Take in the attended tokens ``values [tokens, width]``; ``selected`` bool ``[tokens]``: count in moments."""
        if len(values) == 0:
            return
        absolute = values.abs()
        self._absolute += absolute.sum(0, dtype=torch.float64)
        self._maximum = torch.maximum(self._maximum, absolute.amax(0))
        self._seen += len(values)
        self._waiting.append(values if bool(selected.all()) else values[selected])
        if sum(len(chunk) for chunk in self._waiting) >= self._chunk:
            self._flush()

    def _flush(self) -> None:
        """Multiply what waits: few large products are much faster than many small ones."""
        waiting = torch.cat(self._waiting)
        self._waiting.clear()
        if len(waiting) == 0:
            return
        if self._shift is None:
            self._shift = waiting.mean(0)
        waiting -= self._shift
        for shifted in torch.split(waiting, self._chunk):
            for start in range(0, shifted.shape[1], _BLOCK):
                rows = shifted[:, start : start + _BLOCK]
                self._products[start : start + _BLOCK, start:] += rows.T @ shifted[:, start:]
            self._sum += shifted.sum(0, dtype=torch.float64)
            self._count += len(shifted)

    def finish(self) -> InputStatistics:
        """Return the statistics of everything that was added."""
        if self._waiting:
            self._flush()
        assert self._shift is not None
        offset = self._sum / self._count
        centred = self._products.addr_(offset, offset, alpha=-self._count).float()
        del self._products
        _mirror(centred)
        return InputStatistics(
            centred=centred,
            mean=self._shift.double() + offset,
            count=self._count,
            mean_absolute=(self._absolute / self._seen).float(),
            max_absolute=self._maximum,
        )


def _mirror(matrix: Tensor) -> None:
    """Make ``matrix [d, d]``, of which only the blocks from the diagonal on are right, symmetric."""
    for start in range(0, len(matrix), _BLOCK):
        stop = start + _BLOCK
        block = matrix[start:stop, start:stop]
        block.copy_((block + block.T) / 2)
        matrix[stop:, start:stop] = matrix[start:stop, stop:].T
