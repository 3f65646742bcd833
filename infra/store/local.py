"""Artifact store in a directory."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import BinaryIO
from typing import cast

from infra.disk import full_disk_is_unavailable
from infra.errors import NotFoundError
from infra.store.base import BlobRef
from infra.store.base import BlobStore
from infra.store.base import StoredBlob
from infra.store.base import blob_key
from infra.store.base import check_announced
from infra.store.base import copy_and_hash
from infra.store.section import FileSection

_FULL = "The disk of the artifact store is full."


class LocalStore:
    """Blobs as read-only files ``sha256/ab/cd/<hex>`` below a root.

    Bytes are written to ``tmp/`` on the same file system, flushed to the disk, and linked to their final name: a crash
    leaves at most a file in ``tmp/``.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._tmp = root / "tmp"
        self._tmp.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, source: BinaryIO | Path, *, expected_sha256: str | None = None) -> BlobRef:
        """See :meth:`BlobStore.put`."""
        if isinstance(source, Path):
            with source.open("rb") as stream:
                return self.put(stream, expected_sha256=expected_sha256)
        with full_disk_is_unavailable(_FULL), tempfile.NamedTemporaryFile(dir=self._tmp, delete=False) as file:
            temporary = Path(file.name)
            try:
                ref = copy_and_hash(source, cast("BinaryIO", file))
                check_announced(ref, expected_sha256)
                file.flush()
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
                self._link(temporary, ref)
            finally:
                temporary.unlink(missing_ok=True)
        return ref

    def _link(self, temporary: Path, ref: BlobRef) -> None:
        final = self._root / blob_key(ref.sha256)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(temporary, final)
        except FileExistsError:
            if final.stat().st_size == ref.size:
                os.utime(final)
                return
            temporary.replace(final)  # what was there is damaged
        _sync_directories(final.parent, self._root)

    def open(self, sha256: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See :meth:`BlobStore.open`."""
        path = self._root / blob_key(sha256)
        try:
            file = path.open("rb")
        except FileNotFoundError:
            raise NotFoundError(f"There is no blob {sha256} in the artifact store.") from None
        if start == 0 and length is None:
            return file
        return FileSection.of(file, start, length)

    def path(self, sha256: str) -> Path | None:
        """See :meth:`BlobStore.path`."""
        path = self._root / blob_key(sha256)
        return path if path.is_file() else None

    def exists(self, sha256: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        return (self._root / blob_key(sha256)).is_file()

    def delete(self, sha256: str) -> None:
        """See :meth:`BlobStore.delete`; the file is moved away first, so that nobody sees a half removed one."""
        doomed = self._tmp / f"deleted-{uuid.uuid4().hex}"
        try:
            (self._root / blob_key(sha256)).rename(doomed)
        except FileNotFoundError:
            return
        doomed.unlink(missing_ok=True)

    def list_blobs(self) -> Iterator[StoredBlob]:
        """See :meth:`BlobStore.list_blobs`."""
        for path in (self._root / "sha256").glob("??/??/*"):
            try:
                modified_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            except FileNotFoundError:
                continue
            yield StoredBlob(path.name, modified_at)

    def remove_leftovers(self, older_than: datetime) -> int:
        """See :meth:`BlobStore.remove_leftovers`; they are in ``tmp/``."""
        removed = 0
        for path in self._tmp.iterdir():
            try:
                if datetime.fromtimestamp(path.stat().st_mtime, UTC) < older_than:
                    path.unlink()
                    removed += 1
            except FileNotFoundError:
                continue
        return removed


def _sync_directories(directory: Path, root: Path) -> None:
    """Flush the names of a new file and of the directories that were made for it."""
    while True:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if directory == root:
            return
        directory = directory.parent


if TYPE_CHECKING:

    def _conforms(store: LocalStore) -> BlobStore:
        return store
