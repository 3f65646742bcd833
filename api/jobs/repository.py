"""Queries of the jobs resource."""

from datetime import datetime
from typing import Any

from sqlalchemy import func
from sqlalchemy.orm import defer
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select
from sqlmodel.sql.expression import SelectOfScalar

from api.jobs.schemas import Progress
from api.jobs.schemas import TrialCounts
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import Trial
from search.job_clock import active_seconds

LARGE: Any = col(Job.prepared)
"""What the stages found out for each other: hundreds of kilobytes that no list and no status shows."""
END_STATES = ("succeeded", "failed", "cancelled")


def owned_by(owner: str, state: str | None) -> SelectOfScalar[Job]:
    """Select the jobs of one owner, optionally those in one state."""
    statement = select(Job).where(Job.owner == owner).options(defer(LARGE))
    return statement if state is None else statement.where(col(Job.state) == state)


def last_event(session: Session, job: Job) -> int | None:
    """Return the id of the newest event of a job: whatever happens to a job or to one of its trials is an event."""
    return session.exec(select(func.max(Event.id)).where(Event.job_id == job.id)).one()


def progress(session: Session, job: Job, now: datetime) -> Progress:
    """Count the trials and tell the time of a job."""
    counts = dict(
        session.exec(select(Trial.state, func.count()).where(Trial.job_id == job.id).group_by(Trial.state)).all()
    )
    states = ("queued", "evaluated", "complete", "rejected", "failed", "cancelled")
    elapsed = active_seconds(job, job.finished_at or now)
    seconds = job.request.get("budget", {}).get("seconds")
    if seconds is not None:
        seconds += (job.request.get("recover") or {}).get("seconds", 0.0)
    remaining = max(0.0, seconds - elapsed) if seconds is not None else None
    return Progress(
        trials=TrialCounts(total=sum(counts.values()), **{state: counts.get(state, 0) for state in states}),
        elapsed_seconds=round(elapsed, 1),
        remaining_seconds=0.0 if job.state in END_STATES else remaining and round(remaining, 1),
    )
