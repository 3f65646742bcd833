"""Results that several jobs use: found again by a key over the content that they were computed from."""

from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import update
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.clock import utcnow
from infra.database.models import JsonObject
from infra.database.models import SharedBlob
from infra.database.models import SharedResult
from infra.database.models import SharedSource
from infra.database.upsert import insert_into


@dataclass(frozen=True)
class Shared:
    """What an earlier job has left.

    Attributes:
        found: Its JSON.
        blobs: ``{name: sha256}`` of its files.
    """

    found: JsonObject
    blobs: dict[str, str]


def use_shared(session: Session, key: str) -> Shared | None:
    """Return the result of ``key``, if there is one; it becomes young again, so that retention leaves it alone."""
    statement = update(SharedResult).where(col(SharedResult.key) == key).values(used_at=utcnow())
    found = session.execute(statement.returning(col(SharedResult.found))).scalar_one_or_none()
    if found is None:
        return None
    rows = session.exec(select(SharedBlob).where(SharedBlob.key == key)).all()
    return Shared(found, {row.name: row.sha256 for row in rows})


def keep_shared(
    session: Session, key: str, kind: str, found: JsonObject, *, blobs: Mapping[str, str], sources: Iterable[str]
) -> None:
    """Keep a result, unless another job was faster.

    Args:
        session: A session that can write.
        key: Names everything that the result depends on.
        kind: What it is, for people who look at the table.
        found: Its JSON.
        blobs: ``{name: sha256}`` of its files; they stay as long as the result does.
        sources: Digests of the user's files that it was computed from; it goes when one of them is nobody's any more.
    """
    session.flush()
    now = utcnow()
    row = insert_into(session, SharedResult).values(key=key, kind=kind, found=found, created_at=now, used_at=now)
    if session.execute(row.on_conflict_do_nothing().returning(col(SharedResult.key))).first() is None:
        return
    session.add_all(SharedBlob(key=key, name=name, sha256=sha256) for name, sha256 in blobs.items())
    session.add_all(SharedSource(key=key, sha256=sha256) for sha256 in set(sources))
