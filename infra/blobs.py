"""Blobs: bytes in the artifact store together with the row that says they are there."""

import os
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite
from sqlmodel import Session
from sqlmodel import col

from infra.database.clock import database_time
from infra.database.engine import Database
from infra.database.models import Blob
from infra.database.upsert import insert_into
from infra.errors import UnavailableError
from infra.store.base import BlobRef
from infra.store.base import BlobStore
from infra.store.base import copy_and_hash
from infra.store.verified import check_digest


def put_file(
    database: Database, store: BlobStore, source: BinaryIO | Path, *, expected_sha256: str | None = None
) -> BlobRef:
    """Store bytes, then write their row in a transaction of its own.

    A blob that no other row refers to within the grace period of the garbage collection is removed again.

    Raises:
        InvalidInputError: The bytes are not those of ``expected_sha256``.
        UnavailableError: The store or the database does not answer, or a disk is full.
    """
    ref = store.put(source, expected_sha256=expected_sha256)
    with database.write_session() as session:
        record_blob(session, store, ref)
    return ref


def record_blob(session: Session, store: BlobStore, ref: BlobRef) -> None:
    """Write the row of bytes that were stored just now; a row that exists becomes young again.

    The row is written before looking whether the bytes are still there: the garbage collection removes bytes only while
    it holds the row's lock, so from here on it keeps them.

    Raises:
        UnavailableError: The garbage collection was faster; store the bytes again.
    """
    session.flush()
    statement = _insert(session, ref)
    session.execute(
        statement.on_conflict_do_update(index_elements=["sha256"], set_={"created_at": statement.excluded.created_at})
    )
    if not store.exists(ref.sha256):
        raise UnavailableError(f"The blob {ref.sha256} was collected meanwhile.", hint="Try again.")


def insert_blob(session: Session, ref: BlobRef) -> bool:
    """Write the row of a blob unless there is one; returns whether it was written."""
    written = session.execute(_insert(session, ref).on_conflict_do_nothing().returning(col(Blob.sha256)))
    return written.first() is not None


def _insert(session: Session, ref: BlobRef) -> sqlite.Insert | postgresql.Insert:
    # By the database's clock: a host whose clock is late would have its blobs collected at once, else they would stay.
    return insert_into(session, Blob).values(sha256=ref.sha256, size=ref.size, created_at=database_time())


def materialise(store: BlobStore, sha256: str, path: Path) -> Path:
    """Put a verified copy of a blob at ``path`` for programs that want a file; it must not be written to.

    On a local store this is a hard link where the file system allows, else a copy. Nothing is at ``path`` unless the
    bytes have the right hash.

    Returns:
        ``path``.

    Raises:
        NotFoundError: There is no such blob.
        UnavailableError: The stored bytes are damaged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    temporary.unlink(missing_ok=True)
    try:
        if _link(store.path(sha256), temporary):
            with temporary.open("rb") as stream:
                found = copy_and_hash(stream, None)
        else:
            with store.open(sha256) as stream, temporary.open("wb") as file:
                found = copy_and_hash(stream, file)
        check_digest(sha256, found.sha256)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _link(source: Path | None, target: Path) -> bool:
    if source is None:
        return False
    try:
        os.link(source, target)
    except OSError:
        return False
    return True
