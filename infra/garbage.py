"""Removes blobs that nothing needs any more."""

import logging
from datetime import timedelta

from sqlalchemy import ColumnElement
from sqlalchemy import delete
from sqlalchemy import exists
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.blobs import insert_blob
from infra.clock import utcnow
from infra.database.clock import database_time
from infra.database.engine import Database
from infra.database.models import Blob
from infra.database.models import Dataset
from infra.database.models import Export
from infra.database.models import JobBlob
from infra.database.models import ModelFile
from infra.database.models import SharedBlob
from infra.database.models import Upload
from infra.store import BlobRef
from infra.store import BlobStore

logger = logging.getLogger(__name__)

_BATCH = 100
_BY_KEY = (col(ModelFile.sha256), col(Dataset.sha256), col(JobBlob.sha256), col(SharedBlob.sha256))


def collect_blobs(database: Database, store: BlobStore, grace_seconds: float) -> int:
    """Remove blobs that no row refers to, and stored bytes that have no row, unless they are young.

    A row and its bytes go in one transaction that holds the row's lock, so that :func:`infra.blobs.record_blob`, which
    writes the row before it looks for the bytes, cannot end with a row without bytes. May run anywhere, any number of
    times at once.

    Returns:
        Number of blobs removed.

    Raises:
        UnavailableError: The database or the store does not answer.
    """
    store.remove_leftovers(utcnow() - timedelta(seconds=grace_seconds))
    removed = 0
    with database.read_session() as session:
        candidates = list(session.exec(select(Blob.sha256).where(*_is_garbage(grace_seconds))))
    for start in range(0, len(candidates), _BATCH):
        removed += _remove(database, store, candidates[start : start + _BATCH], grace_seconds)
    return removed + _remove_strays(database, store, grace_seconds)


def needed_blobs(session: Session) -> set[str]:
    """Return the digests of all blobs that a row refers to."""
    digests = _named_in_json(session)
    for column in _BY_KEY:
        digests.update(session.exec(select(column)))
    return digests


def _is_garbage(grace_seconds: float) -> list[ColumnElement[bool]]:
    return [
        col(Blob.created_at) < database_time(-grace_seconds),
        *(~exists().where(column == col(Blob.sha256)) for column in _BY_KEY),
    ]


def _named_in_json(session: Session) -> set[str]:
    """Digests in JSON columns, which no foreign key protects."""
    digests = {file["sha256"] for files in session.exec(select(Export.files)) for file in files}
    for parts in session.exec(select(Upload.parts)):
        digests.update(parts)
    return digests


def _remove(database: Database, store: BlobStore, digests: list[str], grace_seconds: float) -> int:
    with database.write_session() as session:
        doomed = set(digests) - _named_in_json(session)
        gone = session.scalars(
            delete(Blob)
            .where(col(Blob.sha256).in_(doomed), *_is_garbage(grace_seconds))
            .returning(col(Blob.sha256))
            .execution_options(synchronize_session=False)
        ).all()
        for sha256 in gone:
            store.delete(sha256)
    if gone:
        logger.info("removed %d blobs that nothing needs", len(gone))
    return len(gone)


def _remove_strays(database: Database, store: BlobStore, grace_seconds: float) -> int:
    """Remove bytes whose row was never written, because the writer died in between."""
    cutoff = utcnow() - timedelta(seconds=grace_seconds)
    removed = 0
    for blob in store.list_blobs():
        if blob.modified_at >= cutoff:
            continue
        with database.read_session() as session:
            if session.get(Blob, blob.sha256) is not None:
                continue  # nearly all: they need no write
        with database.write_session() as session:
            # The row is ours until the commit: whoever stores the same bytes now waits, and then finds them gone.
            if not insert_blob(session, BlobRef(blob.sha256, 0)):
                continue
            store.delete(blob.sha256)
            session.execute(delete(Blob).where(col(Blob.sha256) == blob.sha256))
        removed += 1
    return removed
