"""Artifact store in S3 and what speaks like it, Google Cloud Storage, Azure, or memory (through ``obstore``)."""

import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import BinaryIO
from typing import cast

from infra.disk import full_disk_is_unavailable
from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from infra.errors import UnavailableError
from infra.store.base import CHUNK_BYTES
from infra.store.base import BlobRef
from infra.store.base import BlobStore
from infra.store.base import StoredBlob
from infra.store.base import blob_key
from infra.store.base import check_announced
from infra.store.base import copy_and_hash
from infra.store.unchanged import UnchangedFile

_FULL = "The disk for temporary files is full."


class ObjectStore:
    """Blobs as objects ``sha256/ab/cd/<hex>``.

    Args:
        store: A store of ``obstore.store``, already at the prefix to use.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    @classmethod
    def from_url(cls, url: str) -> "ObjectStore":
        """Open ``s3://``, ``gs://``, ``az://`` or ``memory://``; credentials come from the usual variables.

        Raises:
            ValueError: ``obstore`` is not installed, or it does not know the URL.
        """
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError:
            raise ValueError("object stores need the package obstore: pip install 'paretune[s3]'") from None
        try:
            return cls(from_url(url))
        except BaseError as error:
            raise ValueError(f"not a usable store URL: {error}") from None

    def put(self, source: BinaryIO | Path, *, expected_sha256: str | None = None) -> BlobRef:
        """See :meth:`BlobStore.put`.

        The name is the hash, so that all is read before anything is sent: a file where it lies, a stream by way of a
        temporary file.
        """
        if isinstance(source, Path):
            with source.open("rb") as file:
                return self._put(file, copy_and_hash(file, None), expected_sha256)
        with full_disk_is_unavailable(_FULL), tempfile.TemporaryFile() as spool:
            ref = copy_and_hash(source, cast("BinaryIO", spool))
            return self._put(cast("BinaryIO", spool), ref, expected_sha256)

    def _put(self, file: BinaryIO, ref: BlobRef, expected_sha256: str | None) -> BlobRef:
        check_announced(ref, expected_sha256)
        unchanged = UnchangedFile(file, ref.sha256)
        with _store_errors(ref.sha256):
            try:
                self._store.put(blob_key(ref.sha256), unchanged)
            except OSError:
                if not unchanged.changed:
                    raise
        if unchanged.changed:
            raise InvalidInputError("The file was changed while it was stored.", hint="Send it again.")
        return ref

    def open(self, sha256: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See :meth:`BlobStore.open`."""
        key = blob_key(sha256)
        if length == 0:
            return io.BytesIO()
        options: dict[str, Any] = {}
        if length is not None:
            options["range"] = (start, start + length)
        elif start > 0:
            options["range"] = {"offset": start}
        with _store_errors(sha256):
            stream = self._store.get(key, options=options).stream(min_chunk_size=CHUNK_BYTES)
        return cast("BinaryIO", io.BufferedReader(_ChunkReader(iter(stream), sha256)))

    def path(self, sha256: str) -> Path | None:
        """See :meth:`BlobStore.path`; objects are not files."""
        return None

    def exists(self, sha256: str) -> bool:
        """See :meth:`BlobStore.exists`."""
        try:
            with _store_errors(sha256):
                self._store.head(blob_key(sha256))
        except NotFoundError:
            return False
        return True

    def delete(self, sha256: str) -> None:
        """See :meth:`BlobStore.delete`."""
        try:
            with _store_errors(sha256):
                self._store.delete(blob_key(sha256))
        except NotFoundError:
            return

    def list_blobs(self) -> Iterator[StoredBlob]:
        """See :meth:`BlobStore.list_blobs`."""
        for page in self._store.list("sha256"):
            for meta in page:
                yield StoredBlob(str(meta["path"]).rsplit("/", 1)[-1], meta["last_modified"])

    def remove_leftovers(self, older_than: datetime) -> int:
        """See :meth:`BlobStore.remove_leftovers`; the server forgets unfinished uploads by itself."""
        return 0


class _ChunkReader(io.RawIOBase):
    """Turns an iterator over chunks into a stream."""

    def __init__(self, chunks: Iterator[Any], sha256: str) -> None:
        super().__init__()
        self._chunks = chunks
        self._sha256 = sha256
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest:
            try:
                with _store_errors(self._sha256):
                    self._rest = memoryview(bytes(next(self._chunks)))
            except StopIteration:
                return 0
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


@contextmanager
def _store_errors(sha256: str) -> Iterator[None]:
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError:
        raise NotFoundError(f"There is no blob {sha256} in the artifact store.") from None
    except (BaseError, OSError) as error:
        raise UnavailableError(
            "The artifact store does not answer as it should.",
            hint="Look at the store and at its credentials; work goes on by itself when it is back.",
        ) from error


if TYPE_CHECKING:

    def _conforms(store: ObjectStore) -> BlobStore:
        return store
