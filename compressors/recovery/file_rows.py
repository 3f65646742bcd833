"""Rows of a matrix in a file that are read and written one stretch at a time, without mapping the file."""

import os
import weakref
from pathlib import Path

import torch
from torch import Tensor


class OpenFile:
    """A file descriptor that is closed when nothing refers to it any more."""

    def __init__(self, path: Path, *, write: bool) -> None:
        self.descriptor = os.open(path, os.O_RDWR if write else os.O_RDONLY)
        weakref.finalize(self, os.close, self.descriptor)


class FileRows:
    """A matrix ``[rows, width]`` at a place of a file; stretches of rows are read and written like those of a tensor.

    Pages of a mapped file count as memory of the process, up to the whole file once every text was seen. What is read
    here lives for one batch, and the rest stays in the system's cache, which gives way to other needs.
    """

    def __init__(self, file: OpenFile, offset: int, shape: tuple[int, int], dtype: torch.dtype) -> None:
        """Take ``shape`` rows of ``dtype`` that start at byte ``offset``."""
        self.shape, self.dtype = shape, dtype
        self._file, self._offset = file, offset
        self._row_bytes = shape[1] * dtype.itemsize

    def __getitem__(self, rows: slice) -> Tensor:
        """Read the rows ``start:stop``, ``[stop - start, width]``.

        Raises:
            EOFError: the file is shorter than it should be.
        """
        content = bytearray((rows.stop - rows.start) * self._row_bytes)
        view, place = memoryview(content), self._offset + rows.start * self._row_bytes
        while view:
            taken = os.preadv(self._file.descriptor, [view], place)
            if not taken:
                raise EOFError("A file of token states ends too early; delete it, and it is made anew.")
            view, place = view[taken:], place + taken
        return torch.frombuffer(content, dtype=self.dtype).view(-1, self.shape[1])

    def __setitem__(self, rows: slice, values: Tensor) -> None:
        """Write the rows ``start:stop``."""
        view = values.contiguous().numpy().data.cast("B")
        place = self._offset + rows.start * self._row_bytes
        while view:
            taken = os.pwrite(self._file.descriptor, view, place)
            view, place = view[taken:], place + taken
