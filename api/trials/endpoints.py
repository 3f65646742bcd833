"""``/v1/jobs/{id}/trials``."""

from typing import Annotated
from typing import Literal

from fastapi import APIRouter
from fastapi import Path
from fastapi import Query
from fastapi import Response
from sqlmodel import col
from sqlmodel import select

from api.auth import Reader
from api.etags import IfNoneMatch
from api.etags import conditional
from api.ownership import get_owned
from api.pagination import Limit
from api.pagination import Page
from api.problems import responses
from api.services import ReadSession
from api.trials.repository import trial_by_number
from infra.database.models import Job
from infra.database.models import Trial
from search.lifecycle import job_trials
from search.presenter import Presenter
from search.views import TrialView

router = APIRouter(prefix="/v1/jobs/{job_id}/trials", tags=["trials"])

TrialState = Annotated[
    Literal["queued", "evaluated", "complete", "rejected", "failed", "cancelled"] | None,
    Query(description="Only trials in it."),
]
Number = Annotated[int, Path(ge=0, le=1 << 31)]
After = Annotated[int | None, Query(alias="cursor", ge=0, le=1 << 31, description="`next_cursor` of the page before.")]


@router.get("", response_model=Page[TrialView], responses=responses(404, 422))
def list_trials(
    job_id: str,
    session: ReadSession,
    principal: Reader,
    state: TrialState = None,
    limit: Limit = 50,
    cursor: After = None,
) -> Page[TrialView]:
    """List the candidates of a job in the order of their numbers."""
    job = get_owned(session, Job, job_id, principal)
    statement = select(Trial).where(Trial.job_id == job_id)
    if state is not None:
        statement = statement.where(Trial.state == state)
    if cursor is not None:
        statement = statement.where(col(Trial.number) > cursor)
    rows = list(session.exec(statement.order_by(col(Trial.number)).limit(limit + 1)))
    page = rows[:limit]
    following = str(page[-1].number) if len(rows) > limit else None
    presenter = Presenter(job, job_trials(session, job_id)) if page else None
    return Page(items=[presenter.trial(row) for row in page] if presenter else [], next_cursor=following)


@router.get("/{number}", response_model=TrialView, responses=responses(404, 422))
def get_trial(
    job_id: str, number: Number, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """Read one candidate: its recipe, its measurements, its quality, its place."""
    job = get_owned(session, Job, job_id, principal)
    return conditional(trial_by_number(session, job, number), if_none_match)
