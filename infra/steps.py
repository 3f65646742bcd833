"""The life of a step as compare-and-swap statements.

    queued --claim--> running --finish--> done
      ^                  |----fail-----> failed      (attempts exhausted, or no use to try again)
      |                  |----cancel---> cancelled
      +--fail, release, reap--+

A claim gives the worker a *lease*: a token that is new with every claim, and a time until which the claim holds without
a heartbeat. Every later write names the token; a worker whose lease was taken over changes nothing and gets
:class:`infra.errors.StaleLeaseError`. All times are those of the database's clock. Every function works in the caller's
transaction.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from typing import Literal

from sqlalchemy import ColumnElement
from sqlalchemy import case
from sqlalchemy import func
from sqlalchemy import null
from sqlalchemy import or_
from sqlalchemy import true
from sqlalchemy import update
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.clock import uuid7
from infra.counters import LEASES_EXPIRED
from infra.counters import count
from infra.database.clock import database_time
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.database.upsert import insert_into
from infra.errors import ParetuneError
from infra.errors import RunnerError
from infra.errors import StaleLeaseError

_LONGEST_RETRY_SECONDS = 300.0
_NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_token": None, "lease_expires_at": None}

Lease = Literal["held", "cancelled", "lost"]


@dataclass(frozen=True, slots=True)
class ClaimedStep:
    """A plain copy of a step that this worker owns, with the token that proves it."""

    id: str
    job_id: str
    trial_id: str | None
    kind: str
    key: str
    queue: str
    payload: JsonObject
    attempt: int
    max_attempts: int
    lease_owner: str
    lease_token: str


def create_step(
    session: Session,
    *,
    job_id: str,
    kind: str,
    key: str,
    queue: str,
    payload: JsonObject | None = None,
    trial_id: str | None = None,
    priority: int | None = None,
    max_attempts: int = 3,
    not_before: datetime | None = None,
) -> Step:
    """Create a queued step, or return the one that exists under the same key of the same job.

    Args:
        session: A write session.
        job_id: The job; its row must be written or be pending in the session.
        kind: Name of the stage that does the work.
        key: Unique within the job. What is asked for twice under one key happens once.
        queue: ``search``, ``compute`` or ``device.<name>``.
        payload: Arguments for the stage.
        trial_id: The trial that the step is about.
        priority: 0 to 9, 9 is served first; the job's own priority by default.
        max_attempts: How often the step may start before it fails for good.
        not_before: Earliest time to start.
    """
    session.flush()
    if priority is None:
        priority = session.exec(select(Job.priority).where(Job.id == job_id)).one()
    session.execute(
        insert_into(session, Step)
        .values(
            id=uuid7(),
            job_id=job_id,
            trial_id=trial_id,
            kind=kind,
            key=key,
            queue=queue,
            payload=payload or {},
            state="queued",
            priority=priority,
            attempt=0,
            max_attempts=max_attempts,
            not_before=not_before,
            created_at=database_time(),
        )
        .on_conflict_do_nothing(index_elements=["job_id", "key"])
    )
    return session.exec(select(Step).where(Step.job_id == job_id, Step.key == key)).one()


def claim(session: Session, step_id: str, owner: str, lease_seconds: float) -> ClaimedStep | None:
    """Take a queued step that is due; ``None`` if somebody else has it, it is over, or it is not yet due."""
    token = uuid.uuid4().hex
    row = session.execute(
        update(Step)
        .where(col(Step.id) == step_id, col(Step.state) == "queued", is_due())
        .values(
            state="running",
            attempt=Step.attempt + 1,
            lease_owner=owner,
            lease_token=token,
            lease_expires_at=database_time(lease_seconds),
            started_at=func.coalesce(Step.started_at, database_time()),
        )
        .returning(
            col(Step.job_id),
            col(Step.trial_id),
            col(Step.kind),
            col(Step.key),
            col(Step.queue),
            col(Step.payload),
            col(Step.attempt),
            col(Step.max_attempts),
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return ClaimedStep(
        id=step_id,
        job_id=row.job_id,
        trial_id=row.trial_id,
        kind=row.kind,
        key=row.key,
        queue=row.queue,
        payload=row.payload,
        attempt=row.attempt,
        max_attempts=row.max_attempts,
        lease_owner=owner,
        lease_token=token,
    )


def renew(session: Session, claimed: ClaimedStep, lease_seconds: float) -> Lease:
    """Prolong the lease: the heartbeat.

    Returns:
        ``held``; ``cancelled`` if the job was asked to stop after this step was created; ``lost`` if the lease was
        taken over or the step is over.
    """
    held = session.execute(
        update(Step)
        .where(_owned(claimed))
        .values(lease_expires_at=database_time(lease_seconds))
        .returning(col(Step.id))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return look(session, claimed) if held is not None else _without_lease(session, claimed)


def look(session: Session, claimed: ClaimedStep) -> Lease:
    """Return what :func:`renew` would, without renewing; for a read session."""
    held = session.exec(select(Step.id).where(_owned(claimed))).one_or_none()
    if held is None:
        return _without_lease(session, claimed)
    return "cancelled" if _is_cancelled(session, claimed) else "held"


def finish(session: Session, claimed: ClaimedStep, output: JsonObject) -> Step:
    """Mark the step done with its output; the rows that follow from it belong into the same transaction.

    Raises:
        StaleLeaseError: The step was taken over, cancelled, or is over.
    """
    return _end(session, claimed, state="done", output=output, error=null(), finished_at=database_time())


def fail(
    session: Session, claimed: ClaimedStep, error: ParetuneError, *, retry: bool = True, retry_seconds: float = 2.0
) -> Step:
    """Queue the step again after a delay that doubles with every attempt; without attempts left it fails for good.

    Args:
        session: A write session.
        claimed: The step.
        error: What went wrong; kept in the row in both cases.
        retry: ``False``: another attempt would fail the same way.
        retry_seconds: Delay after the first attempt.

    Returns:
        The step, in state ``queued`` or ``failed``.

    Raises:
        StaleLeaseError: The step was taken over, cancelled, or is over.
    """
    if retry and claimed.attempt < claimed.max_attempts:
        delay = min(retry_seconds * 2 ** (claimed.attempt - 1), _LONGEST_RETRY_SECONDS)
        return _end(
            session,
            claimed,
            state="queued",
            dispatched_at=None,
            not_before=database_time(delay),
            error=error.to_dict(),
        )
    return _end(session, claimed, state="failed", error=error.to_dict(), finished_at=database_time())


def release(
    session: Session, claimed: ClaimedStep, *, delay_seconds: float = 0.0, note: JsonObject | None = None
) -> Step:
    """Hand the step back as if it had not been tried: the worker stops, or something it needs is away.

    Args:
        session: A write session.
        claimed: The step.
        delay_seconds: Earliest time to start again, from now.
        note: Why, kept in ``step.error`` until the step is over; by default what is there stays.

    Raises:
        StaleLeaseError: The step was taken over, cancelled, or is over.
    """
    return _end(
        session,
        claimed,
        state="queued",
        attempt=Step.attempt - 1,
        dispatched_at=None,
        not_before=database_time(delay_seconds),
        **({} if note is None else {"error": note}),
    )


def cancel(session: Session, claimed: ClaimedStep) -> Step:
    """End the step because its job was cancelled.

    Raises:
        StaleLeaseError: The step was taken over or is over.
    """
    return _end(session, claimed, state="cancelled", finished_at=database_time())


def cancel_steps(session: Session, job_id: str, *, keep_kinds: Sequence[str] = ("export",)) -> None:
    """End every queued and running step of a job, except those of ``keep_kinds``.

    A running step loses its lease: either its worker's ``finish`` was first and counts, or it is refused.
    """
    session.execute(
        update(Step)
        .where(
            col(Step.job_id) == job_id,
            col(Step.state).in_(("queued", "running")),
            col(Step.kind).not_in(tuple(keep_kinds)),
        )
        .values(state="cancelled", finished_at=database_time(), **_NO_LEASE)
        .execution_options(synchronize_session="fetch")
    )


def jobs_to_reap(session: Session, *, dead_owners: Sequence[str] = ()) -> list[str]:
    """Return the ids of the jobs for which :func:`reap` has something to do; for a read session."""
    condition = (col(Step.state) == "running") & _is_abandoned(dead_owners)
    return list(session.exec(select(Step.job_id).where(condition).distinct()))


def reap(session: Session, job_id: str, *, dead_owners: Sequence[str] = ()) -> list[Step]:
    """Take back the steps of a job whose lease expired, or whose owner is known to be dead.

    Take the job's lock before (:func:`infra.database.locks.lock_job`): the stage of a step that failed will want it.

    Returns:
        The steps taken back, each ``queued`` again, or ``failed`` if it had no attempts left.
    """
    lost = RunnerError(
        "The worker that did this step disappeared.",
        hint="If this repeats, look at the worker's log and at the memory of its machine.",
    ).to_dict()
    exhausted = col(Step.attempt) >= col(Step.max_attempts)
    ids = session.scalars(
        update(Step)
        .where(col(Step.job_id) == job_id, col(Step.state) == "running", _is_abandoned(dead_owners))
        .values(
            state=case((exhausted, "failed"), else_="queued"),
            finished_at=case((exhausted, database_time()), else_=null()),
            dispatched_at=None,
            error=lost,
            **_NO_LEASE,
        )
        .returning(col(Step.id))
        .execution_options(synchronize_session=False)
    ).all()
    if ids:
        count(session, LEASES_EXPIRED, len(ids))
    return list(session.exec(select(Step).where(col(Step.id).in_(ids)).execution_options(populate_existing=True)))


def _is_abandoned(dead_owners: Sequence[str]) -> ColumnElement[bool]:
    expired: ColumnElement[bool] = col(Step.lease_expires_at) < database_time()
    return or_(expired, col(Step.lease_owner).in_(tuple(dead_owners))) if dead_owners else expired


def undispatched(session: Session, limit: int = 200) -> list[Step]:
    """Return due steps for which no message was sent, those of high priority and then the oldest first."""
    return list(
        session.exec(
            select(Step)
            .where(Step.state == "queued", col(Step.dispatched_at).is_(None), is_due())
            .order_by(col(Step.priority).desc(), col(Step.created_at), col(Step.id))
            .limit(limit)
        )
    )


def mark_dispatched(session: Session, step_ids: Sequence[str]) -> None:
    """Note that a message was sent for each of these steps."""
    session.execute(
        update(Step)
        .where(col(Step.id).in_(step_ids), col(Step.state) == "queued")
        .values(dispatched_at=database_time())
        .execution_options(synchronize_session=False)
    )


def forget_dispatch(session: Session, queue: str, *, older_than_seconds: float) -> int:
    """Let the relay send again what is still queued although its message was sent a while ago.

    For a queue that is empty at the broker: the messages were lost. A message too many does no harm.

    Returns:
        Number of steps.
    """
    return len(
        session.scalars(
            update(Step)
            .where(
                col(Step.queue) == queue,
                col(Step.state) == "queued",
                col(Step.dispatched_at) < database_time(-older_than_seconds),
            )
            .values(dispatched_at=None)
            .returning(col(Step.id))
            .execution_options(synchronize_session=False)
        ).all()
    )


def is_due() -> ColumnElement[bool]:
    """Return the condition that a step may start now."""
    return or_(col(Step.not_before).is_(None), col(Step.not_before) <= database_time())


def _owned(claimed: ClaimedStep) -> ColumnElement[bool]:
    condition: ColumnElement[bool] = true()
    return (
        condition
        & (col(Step.id) == claimed.id)
        & (col(Step.state) == "running")
        & (col(Step.lease_token) == claimed.lease_token)
    )


def _without_lease(session: Session, claimed: ClaimedStep) -> Lease:
    state = session.exec(select(Step.state).where(Step.id == claimed.id)).one_or_none()
    return "cancelled" if state == "cancelled" else "lost"


def _is_cancelled(session: Session, claimed: ClaimedStep) -> bool:
    """Whether the job was cancelled after the step was created; a later step, such as an export, was asked for."""
    row = session.exec(
        select(Job.cancel_requested_at, Step.created_at)
        .join(Step, col(Step.job_id) == Job.id)
        .where(Step.id == claimed.id)
    ).one()
    requested_at, created_at = row
    return requested_at is not None and requested_at >= created_at


def _end(session: Session, claimed: ClaimedStep, **values: Any) -> Step:
    ended = session.execute(
        update(Step)
        .where(_owned(claimed))
        .values(**values, **_NO_LEASE)
        .returning(col(Step.id))
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if ended is None:
        raise StaleLeaseError(f"The lease on step {claimed.id} is lost.", hint="Throw the result away.")
    return session.exec(select(Step).where(Step.id == claimed.id).execution_options(populate_existing=True)).one()
