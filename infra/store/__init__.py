"""The artifact store: immutable bytes, named by their sha256."""

from infra.store.base import BlobRef
from infra.store.base import BlobStore
from infra.store.open import open_store

__all__ = ["BlobRef", "BlobStore", "open_store"]
