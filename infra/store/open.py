"""From the setting ``store_url`` to a store."""

from pathlib import Path
from urllib.parse import unquote
from urllib.parse import urlsplit

from infra.store.base import BlobStore
from infra.store.local import LocalStore
from infra.store.s3 import ObjectStore


def open_store(url: str) -> BlobStore:
    """Open the artifact store at ``file:///path``, ``s3://bucket/prefix``, ``gs://...``, ``az://...``.

    Raises:
        ValueError: The URL names no store that we know.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return LocalStore(Path(unquote(parts.path)))
    return ObjectStore.from_url(url)
