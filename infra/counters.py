"""Counts that outlive processes: a scrape of any API process gives what all processes have counted."""

from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite
from sqlmodel import Session

from infra.database.models import Counter

LEASES_EXPIRED = "leases_expired"
"""Steps that were taken back from a worker that had gone silent or died."""


def count(session: Session, name: str, increment: int = 1) -> None:
    """Add to a counter in the caller's transaction; it counts if and only if that commits."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(Counter).values(name=name, value=increment)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": Counter.value + statement.excluded.value}
        )
    )


def counted(session: Session, name: str) -> int:
    """Return the value of a counter; 0 if nothing was counted."""
    counter = session.get(Counter, name)
    return 0 if counter is None else counter.value
