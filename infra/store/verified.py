"""Reading stored bytes so that damaged ones are never taken for good ones."""

import hashlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from infra.errors import UnavailableError
from infra.store.base import CHUNK_BYTES
from infra.store.base import BlobStore

_REMEMBERED = 4096


def read_verified(stream: BinaryIO, sha256: str) -> Iterator[bytes]:
    """Yield the bytes of an open blob in pieces, the last one only when all of them have the right hash; close it.

    Whoever sends them on with their length therefore never sends a damaged file that looks complete.

    Args:
        stream: What :meth:`BlobStore.open` returned, from its beginning.
        sha256: The blob.

    Raises:
        UnavailableError: The stored bytes are damaged.
    """
    digest, held = hashlib.sha256(), b""
    with stream:
        while piece := stream.read(CHUNK_BYTES):
            if held:
                yield held
            digest.update(piece)
            held = piece
    check_digest(sha256, digest.hexdigest())
    if held:
        yield held


def verify_local(store: BlobStore, sha256: str) -> None:
    """Verify a whole blob before a part of it is read; each state of a file once in a process.

    Only on a local store. Object stores check what they hold themselves, and reading all for a part would defeat them.

    Raises:
        UnavailableError: The stored bytes are damaged.
    """
    path = store.path(sha256)
    if path is not None:
        status = path.stat()
        check_digest(sha256, _digest(path, status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(_REMEMBERED)
def _digest(path: Path, _inode: int, _size: int, _modified: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_digest(sha256: str, found: str) -> None:
    """Compare a blob's name with the hash of what was read.

    Raises:
        UnavailableError: They differ.
    """
    if found != sha256:
        raise UnavailableError(
            f"The blob {sha256} is damaged in the artifact store: its bytes have the hash {found}.",
            hint="Restore it from a backup, or upload the file again.",
        )
