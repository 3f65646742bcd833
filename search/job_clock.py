"""How long a job has been worked on: the clock of its budgets, and how long nobody has served it.

Wall time will not do. A service that is switched off for a night, or a laptop that sleeps, would find the budget of
every job used up in the morning. So the time is added up while the service runs: maintenance looks at every running job
twice a minute (:func:`note_time`), ticks do when it does not, and a gap that is much longer than that was no work.
"""

from datetime import datetime
from datetime import timedelta

from sqlalchemy import ColumnElement
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.locks import lock_job
from infra.database.models import Job
from infra.database.models import Step
from infra.events import append_event

LONGEST_GAP = 90.0
"""Seconds between two looks that count at most; three times what lies between two looks of maintenance."""
SHORTEST_GAP = 10.0
"""Seconds between two looks that are worth writing down."""
PATIENCE = 600.0
"""Seconds that a job waits, whatever its budget, for what nobody does: a device that is away for longer does not come
back in time."""
GIVES_UP = ("recover", "finalise")
"""Stages that go on without what nobody does, and say so themselves."""
MOST_TOLD = 100
"""Queued jobs that are told at a time that nobody serves them."""
UNSERVED = "For {minutes:g} minutes no worker has served the queue {queues}: the job waits, and goes on when one does."
UNSERVED_HINT = (
    "`paretune doctor` says what does not run. Workers that you start yourself: docs/guides/operations.md; agents of "
    "other devices: docs/guides/devices.md. `paretune cancel` ends the job."
)


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
    gained, known = _since_last_look(job, now), is_abandoned(job)
    job.idle_seconds = 0.0 if _served(session, job, last) else job.idle_seconds + gained
    if is_abandoned(job) and not known and job.stage not in GIVES_UP:
        _tell(session, job, now)
    job.active_seconds += gained
    job.active_at = now
    session.add(job)


def is_abandoned(job: Job) -> bool:
    """Whether no worker has served the job for so long that it should go on without what it waits for."""
    return job.idle_seconds > PATIENCE


def tell_queued(session: Session, now: datetime, idle: dict[str, float], gap: float) -> int:
    """Say so to the jobs that have not begun, because no worker has served their queue for :data:`PATIENCE`.

    Their clock does not run yet; a job that was told has ``idle_seconds``, until it begins. As with that clock, only
    time counts in which somebody looked: after a night's sleep nothing has been served for hours, and all is well.

    Args:
        session: A write session.
        now: Current time.
        idle: Seconds for which each queue was seen unserved; brought up to date for the next call.
        gap: Seconds since the call before, at most :data:`LONGEST_GAP`; 0 at the first.

    Returns:
        Number of jobs that were told.
    """
    waiting = (Step.kind == "inspect", Step.state == "queued", Job.state == "queued")
    queues = set(session.exec(select(Step.queue).join(Job).where(*waiting).distinct()))
    since = now - timedelta(seconds=gap)
    served = {queue for queue in queues if _worked_on(session, col(Step.queue) == queue, since)}
    seen = {queue: 0.0 if queue in served else idle.get(queue, 0.0) + gap for queue in queues}
    idle.clear()
    idle.update(seen)
    unserved = [queue for queue, seconds in idle.items() if seconds > PATIENCE]
    long_ago = now - timedelta(seconds=PATIENCE)
    due = select(Step).join(Job).where(*waiting, Job.idle_seconds == 0, col(Step.created_at) < long_ago)
    due = due.where(col(Step.queue).in_(unserved)).order_by(col(Step.id)).limit(MOST_TOLD)
    told = 0
    for step in session.exec(due).all():
        lock_job(session, step.job_id)
        job = session.get_one(Job, step.job_id, populate_existing=True)
        if job.state == "queued" and job.idle_seconds == 0:
            job.idle_seconds = min(idle[step.queue], (now - step.created_at).total_seconds())
            session.add(job)
            _tell(session, job, now)
            told += 1
    return told


def _tell(session: Session, job: Job, now: datetime) -> None:
    long_ago = now - timedelta(seconds=PATIENCE / 2)
    counts = (col(Step.kind) != "tick") | (col(Step.created_at) < long_ago)  # ticks are served in a moment, or not
    waits_in = select(Step.queue).where(Step.job_id == job.id, Step.state == "queued", counts)
    queues = " and ".join(repr(queue) for queue in sorted(set(session.exec(waits_in))))
    message = UNSERVED.format(minutes=job.idle_seconds // 60, queues=queues or "of its next step")
    append_event(session, job.id, "notice", {"message": message, "hint": UNSERVED_HINT})


def _since_last_look(job: Job, now: datetime) -> float:
    last = job.active_at or job.started_at
    return 0.0 if last is None else min(LONGEST_GAP, max(0.0, (now - last).total_seconds()))


def _served(session: Session, job: Job, since: datetime) -> bool:
    """Whether a worker has been at a step of this job since then, or at one of another job in a queue where this waits.

    A queue that is served brings every job its turn. A step that was postponed, because something that it needs is
    away, is looked at now and then; that is no work.
    """
    waits_in = select(Step.queue).where(Step.job_id == job.id, Step.state == "queued", Step.kind != "tick")
    return _worked_on(session, (col(Step.job_id) == job.id) | col(Step.queue).in_(waits_in), since)


def _worked_on(session: Session, concerned: ColumnElement[bool], since: datetime) -> bool:
    """Whether a worker has been at one of the concerned steps since then."""
    ended = select(Step.id).where(concerned, Step.kind != "tick", col(Step.state).in_(("done", "failed")))
    if session.exec(ended.where(col(Step.finished_at) >= since).limit(1)).first() is not None:
        return True
    errors = select(Step.error).where(concerned, Step.kind != "tick", Step.state == "running")
    return any("postponed" not in (error or {}) for error in session.exec(errors))
