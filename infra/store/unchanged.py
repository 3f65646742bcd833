"""Sending a file under the name that its bytes had when they were hashed."""

import hashlib
import io
import os
from typing import BinaryIO


class UnchangedFile(io.RawIOBase):
    """A file that cannot be read to its end if its bytes are not those of a hash any more.

    Between hashing and sending somebody may write to the file. Object stores keep nothing of an upload that broke off,
    so that other bytes never stand under the name of the first ones.

    Args:
        file: The file, which can be read anew.
        sha256: What its bytes had as hash.
    """

    def __init__(self, file: BinaryIO, sha256: str) -> None:
        super().__init__()
        self._file = file
        self._sha256 = sha256
        self._digest = hashlib.sha256()
        self.changed = False
        """Whether the bytes turned out to be others."""
        self.seek(0)

    def readable(self) -> bool:
        """See :class:`io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See :class:`io.RawIOBase`."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """See :class:`io.RawIOBase`; reading starts from the beginning."""
        position = self._file.seek(offset, whence)
        if position == 0:
            self._digest = hashlib.sha256()
        return position

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes.

        Raises:
            OSError: This is the end, and the bytes were others.
        """
        piece = self._file.read(size)
        self._digest.update(piece)
        if size != 0 and not piece and self._digest.hexdigest() != self._sha256:
            self.changed = True
            raise OSError("the file was changed while it was read")
        return piece
