"""Create a job: what HTTP adds to :func:`search.service.create_job`."""

from sqlalchemy import func
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from api.auth import Principal
from infra.database.models import ApiKey
from infra.database.models import Job
from infra.database.models import Model
from infra.errors import ConflictError
from infra.errors import InvalidInputError
from infra.errors import RateLimitedError
from search import service as search
from search.lifecycle import ENDED
from search.lifecycle import set_priority
from search.requests import JobRequest


def create_job(session: Session, principal: Principal, request: JobRequest, max_active_jobs: int) -> Job:
    """Check the request against what is known about the model, then queue the job.

    Raises:
        ParetuneError: The request cannot be done; the message says what to change.
    """
    key = session.get(ApiKey, principal.id)
    if key is not None and key.max_active_jobs is not None:
        max_active_jobs = key.max_active_jobs
    active = select(func.count()).where(Job.owner == principal.id, col(Job.state).in_(("queued", "running")))
    if session.exec(active).one() >= max_active_jobs:
        raise RateLimitedError(
            f"This API key may have {max_active_jobs} jobs that are queued or running, and has them.",
            hint="Wait for one to end, or cancel one.",
        )
    _check_task(session, principal, request)
    if key is not None and key.max_priority is not None:
        request = _within(request, key.max_priority)
    return search.create_job(session, principal.id, request)


def _within(request: JobRequest, max_priority: int) -> JobRequest:
    """Lower a priority that was not asked for; refuse one that was."""
    if request.priority <= max_priority:
        return request
    if "priority" in request.model_fields_set:
        raise _above(request.priority, max_priority)
    return request.model_copy(update={"priority": max_priority})


def change_priority(session: Session, principal: Principal, job: Job, priority: int) -> Job:
    """Change the priority of a job.

    Raises:
        ConflictError: The job is over.
        InvalidInputError: The key may not give its jobs that priority.
    """
    if job.state in ENDED:
        raise ConflictError(f"The job {job.id} is {job.state}: nothing waits for it.", hint="Submit it again.")
    key = session.get(ApiKey, principal.id)
    if key is not None and key.max_priority is not None and priority > key.max_priority:
        raise _above(priority, key.max_priority)
    return set_priority(session, job, priority)


def _above(priority: int, most: int) -> InvalidInputError:
    return InvalidInputError(
        f"This API key may give its jobs a priority of at most {most}, not {priority}.",
        hint="Leave priority out, or lower it.",
        errors=[{"field": "priority", "message": f"is above {most}"}],
    )


def _check_task(session: Session, principal: Principal, request: JobRequest) -> None:
    model = session.get(Model, request.model_id)
    if model is None or model.owner != principal.id or model.state != "ready":
        return  # create_job says so
    tasks = model.facts.get("tasks")
    if not tasks or request.task in tasks:
        return
    raise InvalidInputError(
        f"The model {model.name!r} ({model.architecture}) cannot do {request.task}.",
        hint=f"It can do: {', '.join(tasks)}. Set task to that, or upload a model with a classification head.",
        errors=[{"field": "task", "message": f"is not one of {', '.join(tasks)}"}],
    )
