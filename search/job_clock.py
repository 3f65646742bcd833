"""How long a job has been worked on: the clock of its budgets, and how long nobody has served it.

Wall time will not do. A service that is switched off for a night, or a laptop that sleeps, would find the budget of
every job used up in the morning. So the time is added up while the service runs: maintenance looks at every running job
twice a minute (:func:`note_time`), ticks do when it does not, and a gap that is much longer than that was no work.
"""

from datetime import datetime

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Job
from infra.database.models import Step

LONGEST_GAP = 90.0
"""Seconds between two looks that count at most; three times what lies between two looks of maintenance."""
SHORTEST_GAP = 10.0
"""Seconds between two looks that are worth writing down."""
PATIENCE = 600.0
"""Seconds that a job waits, whatever its budget, for what nobody does: a device that is away for longer does not come
back in time."""


def active_seconds(job: Job, now: datetime) -> float:
    """Return the seconds of the job so far in which the service ran; 0 before it has started."""
    return job.active_seconds + _since_last_look(job, now)


def note_time(session: Session, job: Job, now: datetime) -> None:
    """Write down how long the job has been worked on, and since when no worker has served it.

    Args:
        session: A write session that holds the job's lock.
        job: A job that is not over.
        now: Current time.
    """
    last = job.active_at or job.started_at
    if last is None or (now - last).total_seconds() < SHORTEST_GAP:
        return
    gained = _since_last_look(job, now)
    job.idle_seconds = 0.0 if _served(session, job, last) else job.idle_seconds + gained
    job.active_seconds += gained
    job.active_at = now
    session.add(job)


def is_abandoned(job: Job) -> bool:
    """Whether no worker has served the job for so long that it should go on without what it waits for."""
    return job.idle_seconds > PATIENCE


def _since_last_look(job: Job, now: datetime) -> float:
    last = job.active_at or job.started_at
    return 0.0 if last is None else min(LONGEST_GAP, max(0.0, (now - last).total_seconds()))


def _served(session: Session, job: Job, since: datetime) -> bool:
    """Whether a worker has been at a step of this job since then, or at one of another job in a queue where this waits.

    A queue that is served brings every job its turn. A step that was postponed, because something that it needs is
    away, is looked at now and then; that is no work.
    """
    waits_in = select(Step.queue).where(Step.job_id == job.id, Step.state == "queued", Step.kind != "tick")
    concerned = (col(Step.job_id) == job.id) | col(Step.queue).in_(waits_in)
    steps = select(Step.id).where(concerned, Step.kind != "tick")
    ended = steps.where(col(Step.state).in_(("done", "failed")), col(Step.finished_at) >= since)
    if session.exec(ended.limit(1)).first() is not None:
        return True
    errors = select(Step.error).where(concerned, Step.kind != "tick", Step.state == "running")
    return any("postponed" not in (error or {}) for error in session.exec(errors))
