"""Which step a free worker does next: the database decides, a message only says that there may be something.

Among the steps that wait in a queue and are due, the order is

1. priority, the highest first;
2. the job that this worker has just worked on, as long as its turn lasts: its model is loaded;
3. the API key that has the fewest workers of this queue, and then the one that was served longest ago;
4. of its jobs the one with the fewest workers, and then the one that was served longest ago;
5. age.

So a job with a thousand trials and one with ten get the same number of workers, and a key gains nothing by splitting
its work into many jobs. Steps of a key that has as many workers as it may have (``ApiKey.max_workers``) are passed
over. On PostgreSQL the claims of one queue come one after the other, on SQLite all writes do: counts are exact.
"""

from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy import case
from sqlalchemy import func
from sqlalchemy import literal
from sqlalchemy import or_
from sqlalchemy import select
from sqlalchemy import update
from sqlalchemy.orm import aliased
from sqlmodel import Session
from sqlmodel import col

from infra import steps
from infra.database.models import ApiKey
from infra.database.models import Job
from infra.database.models import Step
from infra.steps import ClaimedStep

_CLAIMS = 0x636C6169  # any number that nobody else uses for advisory locks
_TRIES = 3
"""A step may be cancelled between being chosen and being taken."""


def claim_next(
    session: Session, hint: str, owner: str, lease_seconds: float, *, keep_job: str | None = None
) -> ClaimedStep | None:
    """Take the step that deserves it most among those that wait in the same queue as ``hint``.

    Args:
        session: A write session.
        hint: Id of a step, from a message; the step itself may be over, taken, or not yet due.
        owner: Who claims.
        lease_seconds: How long the claim holds without a heartbeat.
        keep_job: The job whose turn it is at this worker.

    Returns:
        The step, or ``None`` if nothing waits that may be done now.
    """
    queue = session.scalar(select(col(Step.queue)).where(col(Step.id) == hint))
    if queue is None:
        return None
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(func.pg_advisory_xact_lock(_CLAIMS, func.hashtext(queue))))
    for _ in range(_TRIES):
        step_id = session.scalar(most_deserving(queue, keep_job))
        if step_id is None:
            return None
        claimed = steps.claim(session, step_id, owner, lease_seconds)
        if claimed is not None:
            return claimed
    return None


def most_deserving(queue: str, keep_job: str | None = None) -> Any:
    """Return the ``SELECT`` that finds the id of the next step of a queue."""
    jobs = _waiting_jobs(queue)
    owners = _waiting_owners(jobs)
    kept = case((jobs.c.job_id == literal(keep_job), 0), else_=1)
    return (
        select(col(Step.id))
        .join(jobs, jobs.c.job_id == col(Step.job_id))
        .join(owners, owners.c.owner == jobs.c.owner)
        .outerjoin(ApiKey, col(ApiKey.id) == jobs.c.owner)
        .where(_waits(queue), or_(col(ApiKey.max_workers).is_(None), owners.c.workers < col(ApiKey.max_workers)))
        .order_by(
            col(Step.priority).desc(),
            kept,
            owners.c.workers,
            _never_first(owners.c.served_at),
            owners.c.served_at,
            jobs.c.workers,
            _never_first(jobs.c.served_at),
            jobs.c.served_at,
            col(Step.created_at),
            col(Step.id),
        )
        .limit(1)
    )


def wake_limited(session: Session, claimed: ClaimedStep) -> int:
    """Let the relay send a message for a step that had to wait because its key had all the workers it may have.

    The message that should have led to it was used up. To be called when a step is over: its key has a worker less.

    Returns:
        Number of steps, 0 or 1; always 0 for keys without ``max_workers``.
    """
    limited = col(ApiKey.max_workers).is_not(None)
    key = session.scalar(
        select(col(ApiKey.id)).join(Job, col(Job.owner) == col(ApiKey.id)).where(col(Job.id) == claimed.job_id, limited)
    )
    if key is None:
        return 0
    blocked = (
        select(col(Step.id))
        .join(Job, col(Job.id) == col(Step.job_id))
        .where(col(Job.owner) == key, _waits(claimed.queue), col(Step.dispatched_at).is_not(None))
        .order_by(col(Step.priority).desc(), col(Step.created_at), col(Step.id))
        .limit(1)
    )
    statement = update(Step).where(col(Step.id).in_(blocked.scalar_subquery()), col(Step.state) == "queued")
    changed = statement.values(dispatched_at=None).returning(col(Step.id))
    return len(session.scalars(changed.execution_options(synchronize_session=False)).all())


def _waits(queue: str) -> ColumnElement[bool]:
    return (col(Step.queue) == queue) & (col(Step.state) == "queued") & steps.is_due()


def _waiting_jobs(queue: str) -> Any:
    """Jobs that wait, or are worked on, in a queue: (job_id, owner, workers, served_at)."""
    served = aliased(Step)
    active = (
        select(
            col(Step.job_id).label("job_id"),
            func.sum(case((col(Step.state) == "running", 1), else_=0)).label("workers"),
        )
        .where(col(Step.queue) == queue, col(Step.state).in_(("queued", "running")))
        .group_by(col(Step.job_id))
        .subquery()
    )
    last = select(func.max(served.started_at)).where(active.c.job_id == served.job_id, literal(queue) == served.queue)
    return (
        select(active.c.job_id, col(Job.owner), active.c.workers, last.scalar_subquery().label("served_at"))
        .join(Job, col(Job.id) == active.c.job_id)
        .cte("waiting_jobs")
    )


def _waiting_owners(jobs: Any) -> Any:
    """Their API keys: (owner, workers, served_at)."""
    return (
        select(
            jobs.c.owner,
            func.sum(jobs.c.workers).label("workers"),
            func.max(jobs.c.served_at).label("served_at"),
        )
        .group_by(jobs.c.owner)
        .cte("waiting_owners")
    )


def _never_first(moment: ColumnElement[Any]) -> ColumnElement[int]:
    """Order before everything what never happened; databases disagree about where nulls belong."""
    return case((moment.is_(None), 0), else_=1)
