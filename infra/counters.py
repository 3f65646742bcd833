"""Counts that outlive processes: a scrape of any API process gives what all processes have counted."""

from sqlmodel import Session

from infra.database.models import Counter
from infra.database.upsert import insert_into

LEASES_EXPIRED = "leases_expired"
"""Steps that were taken back from a worker that had gone silent or died."""


def count(session: Session, name: str, increment: int = 1) -> None:
    """Add to a counter in the caller's transaction; it counts if and only if that commits."""
    statement = insert_into(session, Counter).values(name=name, value=increment)
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["name"], set_={"value": Counter.value + statement.excluded.value}
        )
    )


def counted(session: Session, name: str) -> int:
    """Return the value of a counter; 0 if nothing was counted."""
    counter = session.get(Counter, name)
    return 0 if counter is None else counter.value
