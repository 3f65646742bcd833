"""What every artifact store does."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO
from typing import Protocol

from infra.errors import InvalidInputError

CHUNK_BYTES = 1024 * 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class BlobRef:
    """Name and size of stored bytes."""

    sha256: str
    """64 lower-case hexadecimal digits."""
    size: int
    """In bytes."""


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """One entry of a store's listing."""

    sha256: str
    modified_at: datetime


class BlobStore(Protocol):
    """Content-addressed storage; safe to use from several threads and processes at once.

    A blob is either there completely or not at all, and never changes.
    """

    def put(self, source: BinaryIO | Path, *, expected_sha256: str | None = None) -> BlobRef:
        """Store bytes; storing the same bytes again is cheap and makes them young again.

        Args:
            source: A file, or a stream that is read from where it stands to its end.
            expected_sha256: Refuse anything else.

        Raises:
            InvalidInputError: The bytes are not those of ``expected_sha256``, or the file was changed meanwhile.
            UnavailableError: The disk is full or the store does not answer.
        """

    def open(self, sha256: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """Open stored bytes for reading, or ``length`` bytes of them from ``start``. Not verified.

        Args:
            sha256: The blob.
            start: Offset of the first byte; less than the size, unless it is 0.
            length: At most so many bytes; all by default.

        Raises:
            NotFoundError: There is no such blob.
        """

    def path(self, sha256: str) -> Path | None:
        """Return the read-only file that holds the blob, or ``None`` if it is absent or the store is not local."""

    def exists(self, sha256: str) -> bool:
        """Whether the blob is there."""

    def delete(self, sha256: str) -> None:
        """Remove a blob; it is no error if it is not there."""

    def list_blobs(self) -> Iterator[StoredBlob]:
        """Go through everything that is stored, in any order."""

    def remove_leftovers(self, older_than: datetime) -> int:
        """Remove what crashed writers left before ``older_than``; return the number of files."""


def checked_sha256(sha256: str) -> str:
    """Return the digest if it is one; it becomes part of a path.

    Raises:
        ValueError: It is not 64 lower-case hexadecimal digits.
    """
    if not _SHA256.fullmatch(sha256):
        raise ValueError(f"not a sha256 digest: {sha256[:80]!r}")
    return sha256


def blob_key(sha256: str) -> str:
    """Return the relative name under which a blob is stored: ``sha256/ab/cd/<hex>``."""
    checked_sha256(sha256)
    return f"sha256/{sha256[:2]}/{sha256[2:4]}/{sha256}"


def check_announced(ref: BlobRef, expected_sha256: str | None) -> None:
    """Return if the bytes are those that were announced, or none were.

    Raises:
        InvalidInputError: They are not.
    """
    if expected_sha256 is not None and ref.sha256 != expected_sha256:
        raise InvalidInputError(
            f"The bytes received have the sha256 {ref.sha256}, but {expected_sha256} was announced.",
            hint="Send the file again.",
        )


def copy_and_hash(source: BinaryIO, target: BinaryIO | None) -> BlobRef:
    """Read a stream to its end, write it to ``target``, return digest and size."""
    digest = hashlib.sha256()
    size = 0
    while chunk := source.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        if target is not None:
            target.write(chunk)
    return BlobRef(digest.hexdigest(), size)
