"""A part of a file as a stream of its own."""

import io
from typing import BinaryIO
from typing import cast


class FileSection(io.RawIOBase):
    """Reads ``length`` bytes of an open file from ``start``; closes the file when it is closed."""

    def __init__(self, file: BinaryIO, start: int, length: int | None) -> None:
        super().__init__()
        self._file = file
        self._left = length
        file.seek(start)

    @classmethod
    def of(cls, file: BinaryIO, start: int, length: int | None) -> BinaryIO:
        """Return the section as a buffered binary stream."""
        return cast("BinaryIO", io.BufferedReader(cls(file, start, length)))

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer with what is left, at most."""
        wanted = len(buffer) if self._left is None else min(len(buffer), self._left)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        if self._left is not None:
            self._left -= len(data)
        return len(data)

    def close(self) -> None:
        """Close the file below."""
        self._file.close()
        super().close()
