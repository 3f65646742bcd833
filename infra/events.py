"""What happened to a job, for everybody who watches it."""

from typing import Literal

from sqlmodel import Session

from infra.database.locks import lock_job
from infra.database.models import Event
from infra.database.models import JsonObject

EventKind = Literal["state", "stage", "trial", "progress", "notice", "error"]


def append_event(session: Session, job_id: str, kind: EventKind, payload: JsonObject) -> None:
    """Append an event in the caller's transaction: it is seen if and only if that transaction commits."""
    lock_job(session, job_id)
    session.add(Event(job_id=job_id, kind=kind, payload=payload))
