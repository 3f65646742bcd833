"""Queries of the trials resource."""

from sqlmodel import Session
from sqlmodel import select

from infra.database.models import Job
from infra.database.models import Trial
from infra.errors import NotFoundError
from search import service as search
from search.views import TrialView


def trial_by_number(session: Session, job: Job, number: int) -> TrialView:
    """Return one trial of a job.

    Raises:
        NotFoundError: The job has no trial of this number.
    """
    found = session.exec(select(Trial.id).where(Trial.job_id == job.id, Trial.number == number)).one_or_none()
    if found is None:
        raise NotFoundError(f"The job has no trial {number}.", hint=f"GET /v1/jobs/{job.id}/trials lists them.")
    return search.trial(session, job, found)
