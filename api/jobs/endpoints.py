"""``/v1/jobs``."""

from typing import Annotated
from typing import Literal

from fastapi import APIRouter
from fastapi import Query
from fastapi import Request
from fastapi import Response
from fastapi.responses import JSONResponse
from sqlalchemy import delete
from sqlmodel import Session
from sqlmodel import col

from api import audit
from api.auth import Reader
from api.auth import Submitter
from api.etags import IfMatch
from api.etags import IfNoneMatch
from api.etags import check_unchanged
from api.etags import conditional
from api.etags import etag_of_state
from api.etags import json_answer
from api.etags import unless_known
from api.idempotency import Once
from api.jobs import repository
from api.jobs import service
from api.jobs.schemas import JobChange
from api.jobs.schemas import JobDetails
from api.jobs.schemas import JobView
from api.jobs.schemas import job_view
from api.ownership import get_owned
from api.pagination import Cursor
from api.pagination import Limit
from api.pagination import Page
from api.pagination import page_of
from api.problems import responses
from api.responses import created
from api.services import CurrentServices
from api.services import ReadSession
from api.services import WriteSession
from infra.clock import utcnow
from infra.database.models import Job
from infra.errors import ConflictError
from search import service as search
from search.requests import JobRequest
from search.views import ReportView

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

State = Annotated[
    Literal["queued", "running", "succeeded", "failed", "cancelled"] | None, Query(description="Only jobs in it.")
]


def _details(request: Request, session: Session, job: Job, last_event: int | None) -> JobDetails:
    return JobDetails(
        **job_view(job).model_dump(),
        progress=repository.progress(session, job, utcnow()),
        best=request.app.state.best.get(session, job, last_event),
    )


def _etag(job: Job, last_event: int | None) -> str:
    cancelled = job.cancel_requested_at is not None
    return etag_of_state(job.id, job.version, job.state, job.stage, job.priority, cancelled, job.started_at, last_event)


@router.post("", status_code=202, response_model=JobView, responses=responses(404, 409, 422, 429))
def create_job(
    body: JobRequest, services: CurrentServices, session: WriteSession, principal: Submitter, once: Once
) -> JSONResponse:
    """Start a compression job. What can be known to be wrong with it is said at once."""

    def create() -> JSONResponse:
        job = service.create_job(session, principal, body, services.settings.max_active_jobs)
        return created(job_view(job), f"/v1/jobs/{job.id}", 202)

    return once.run(session, principal, body, create)


@router.get("", response_model=Page[JobView], responses=responses(422))
def list_jobs(
    session: ReadSession, principal: Reader, state: State = None, limit: Limit = 50, cursor: Cursor = None
) -> Page[JobView]:
    """List the jobs of this API key, newest first."""
    rows, following = page_of(session, repository.owned_by(principal.id, state), Job, limit, cursor)
    return Page(items=[job_view(job) for job in rows], next_cursor=following)


@router.get("/{job_id}", response_model=JobDetails, responses=responses(404))
def get_job(
    job_id: str, request: Request, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """Read a job: state, stage, progress, and the best model so far.

    The ETag changes when something happens to the job or to its trials, not with the time that goes on: with 304,
    ``elapsed_seconds`` and ``remaining_seconds`` of the earlier answer have gone on by themselves.
    """
    job = get_owned(session, Job, job_id, principal, later=[repository.LARGE])
    last_event = repository.last_event(session, job)
    return unless_known(
        _etag(job, last_event), if_none_match, lambda: json_answer(_details(request, session, job, last_event))
    )


@router.patch("/{job_id}", response_model=JobView, responses=responses(404, 409, 412, 422))
def change_job(
    job_id: str, body: JobChange, session: WriteSession, principal: Submitter, if_match: IfMatch = None
) -> JobView:
    """Change the priority of a job: what waits is served in the new order, what runs goes on."""
    job = get_owned(session, Job, job_id, principal)
    check_unchanged(_etag(job, repository.last_event(session, job)), if_match)
    audit.record(session, principal, "job.priority", job_id, before=job.priority, priority=body.priority)
    return job_view(service.change_priority(session, principal, job, body.priority))


@router.post("/{job_id}/cancel", response_model=JobView, responses=responses(404, 412))
def cancel_job(job_id: str, session: WriteSession, principal: Submitter, if_match: IfMatch = None) -> JobView:
    """Stop a job; what it found so far stays readable. Cancelling a job that is over does nothing."""
    job = get_owned(session, Job, job_id, principal)
    check_unchanged(_etag(job, repository.last_event(session, job)), if_match)
    audit.record(session, principal, "job.cancel", job_id, state=job.state)
    return job_view(search.cancel_job(session, job))


@router.delete("/{job_id}", status_code=204, responses=responses(404, 409))
def delete_job(job_id: str, session: WriteSession, principal: Submitter) -> None:
    """Delete a job that is over, with its trials, exports and events."""
    job = get_owned(session, Job, job_id, principal)
    if job.state not in repository.END_STATES:
        raise ConflictError(f"The job {job_id} is {job.state}.", hint="Cancel it first.")
    session.exec(delete(Job).where(col(Job.id) == job_id))  # the database takes the rest along
    audit.record(session, principal, "job.delete", job_id, state=job.state)


@router.get("/{job_id}/report", response_model=ReportView, responses=responses(404))
def get_report(job_id: str, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """Everything about the outcome so far: front, baselines, other candidates, time by phase."""
    return conditional(search.report(session, get_owned(session, Job, job_id, principal)), if_none_match)
