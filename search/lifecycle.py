"""State changes of a job and of its trials that need no strategy: light enough for the API.

Everything happens in the caller's transaction. Functions that may run twice, because a message was delivered twice or
a step was repeated, look at the state first and change nothing the second time.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import func
from sqlmodel import select

from infra.database.clock import database_now
from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.database.models import Trial
from infra.errors import CancelledError
from infra.errors import ParetuneError
from infra.events import append_event
from infra.steps import cancel_steps
from infra.steps import create_step

ENDED = frozenset({"succeeded", "failed", "cancelled"})
IN_FLIGHT = ("queued", "evaluated")
TRIAL_STAGES = ("baselines", "search")
"""Stages in which trials are created; in the first only those that need no search."""
LEARNING_STAGES = ("graphs", "table", "options")
"""Stages that find out about device and model what trials can do without."""


def lock_job(session: Session, job: Job) -> Job:
    """Take the job's row lock for the rest of the transaction and read the row again.

    On SQLite a write transaction excludes all others anyway.
    """
    session.flush()
    statement = select(Job).where(Job.id == job.id).with_for_update().execution_options(populate_existing=True)
    return session.exec(statement).one()


def job_trials(session: Session, job_id: str) -> list[Trial]:
    """Return all trials of a job by number."""
    return list(session.exec(select(Trial).where(Trial.job_id == job_id).order_by(col(Trial.number))))


def request_tick(session: Session, job: Job) -> Step:
    """Make sure that a coordinator tick runs after this transaction; at most one waits per job."""
    session.flush()
    ticks = select(Step).where(Step.job_id == job.id, Step.kind == "tick")
    waiting = session.exec(ticks.where(Step.state == "queued")).first()
    if waiting is not None:
        return waiting
    number = session.exec(select(func.count()).select_from(ticks.subquery())).one()
    priority = min(9, job.priority + 1)
    return create_step(session, job_id=job.id, kind="tick", key=f"tick:{number}", queue="search", priority=priority)


def set_priority(session: Session, job: Job, priority: int) -> Job:
    """Change the priority of a job and of what waits for it; what runs goes on. No effect on a job that is over."""
    job = lock_job(session, job)
    if job.state in ENDED or job.priority == priority:
        return job
    change = priority - job.priority
    waiting = select(Step).where(Step.job_id == job.id, Step.state == "queued")
    for step in session.exec(waiting):
        step.priority = max(0, min(9, step.priority + change))
        session.add(step)
    job.priority = priority
    job.version += 1
    session.add(job)
    append_event(session, job.id, "notice", {"message": f"The job has the priority {priority} from now on."})
    return job


def device_queue(session: Session, job: Job) -> str:
    """Name of the queue of the job's device."""
    return f"device.{session.exec(select(Device.name).where(Device.id == job.device_id)).one()}"


def set_stage(session: Session, job: Job, stage: str) -> None:
    """Move the job to another stage."""
    if job.stage != stage:
        job.stage = stage
        job.stage_seconds, job.idle_seconds = job.active_seconds, 0.0
        job.version += 1
        session.add(job)
        append_event(session, job.id, "stage", {"stage": stage})


def end_job(
    session: Session, job: Job, state: str, *, error: ParetuneError | None = None, now: datetime | None = None
) -> None:
    """Put the job into an end state; what is still queued or running for it is cancelled."""
    if job.state in ENDED:
        return
    job.state = state
    job.error = error.to_dict() if error else None
    job.finished_at = now or database_now(session)
    job.version += 1
    if state == "succeeded":
        job.stage = "done"
    session.add(job)
    cancel_steps(session, job.id)
    for trial in session.exec(select(Trial).where(Trial.job_id == job.id, col(Trial.state).in_(IN_FLIGHT))):
        end_trial(session, trial, "cancelled", now=now)
    payload: JsonObject = {"state": state}
    if error:
        append_event(session, job.id, "error", error.to_dict())
    append_event(session, job.id, "state", payload)


def end_trial(
    session: Session, trial: Trial, state: str, *, error: ParetuneError | None = None, now: datetime | None = None
) -> None:
    """Put a trial into an end state and tell those who watch the job."""
    trial.state = state
    trial.finished_at = now or database_now(session)
    if error:
        trial.error = error.to_dict()
    session.add(trial)
    append_event(session, trial.job_id, "trial", trial_event(trial))


def trial_event(trial: Trial) -> JsonObject:
    """Return the payload of a ``trial`` event: final numbers where there are any, else those of the search.

    ``stopped`` says after how many examples the evaluation was given up, and of how many; the drop is of those then.
    """
    measured: JsonObject = trial.final_measurement or trial.measurement or {}
    quality: JsonObject = trial.holdout or trial.quality or {}
    first: JsonObject = trial.facts.get("first_part") or {}
    return {
        "trial_id": trial.id,
        "number": trial.number,
        "source": trial.source,
        "name": trial.facts.get("name"),
        "state": trial.state,
        "objective": measured.get("objective"),
        "ratio": (measured.get("ratio") or {}).get("value"),
        "drop": (quality.get("drop") or {}).get("value"),
        "stopped": {name: first[name] for name in ("examples", "of")} if first.get("stopped") else None,
        "size_bytes": trial.size_bytes,
    }


def cancel_trial_steps(session: Session, trial_ids: Sequence[str]) -> None:
    """Cancel the queued and running steps of some trials; running ones lose their lease."""
    statement = select(Step).where(col(Step.trial_id).in_(trial_ids), col(Step.state).in_(("queued", "running")))
    for step in session.exec(statement):
        step.state, step.finished_at = "cancelled", database_now(session)
        step.lease_owner = step.lease_token = step.lease_expires_at = None
        session.add(step)


def cancel_stage_steps(session: Session, job: Job) -> None:
    """Cancel what the job's stage waits for; downloads go on, and so does the tick that decides this."""
    cancel_steps(session, job.id, keep_kinds=("export", "tick"))


def cancel_job(session: Session, job: Job, now: datetime | None = None) -> Job:
    """Cancel a job that has not ended; the front so far stays readable. Cancelling twice does nothing.

    Running steps lose their lease here; their workers notice with the next heartbeat and stop.
    """
    job = lock_job(session, job)
    if job.state in ENDED:
        return job
    job.cancel_requested_at = job.cancel_requested_at or now or database_now(session)
    end_job(session, job, "cancelled", now=now)
    return job


def fail_job(session: Session, job: Job, error: ParetuneError, now: datetime | None = None) -> None:
    """End the job with an error; the front so far stays readable."""
    job = lock_job(session, job)
    if isinstance(error, CancelledError):
        end_job(session, job, "cancelled", now=now)
    else:
        end_job(session, job, "failed", error=error, now=now)
