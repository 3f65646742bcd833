"""``/v1/jobs/{id}/best``."""

from typing import Annotated

from fastapi import APIRouter
from fastapi import Query
from fastapi import Response

from api.auth import Reader
from api.etags import IfNoneMatch
from api.etags import conditional
from api.ownership import get_owned
from api.problems import responses
from api.services import ReadSession
from infra.database.models import Job
from infra.errors import InvalidInputError
from search import service as search
from search.requests import Goal
from search.views import TrialView

router = APIRouter(prefix="/v1/jobs/{job_id}/best", tags=["best"])

MaxDrop = Annotated[float | None, Query(ge=0, le=1, description="Largest loss of quality: 0.01 is one point.")]
MaxLatency = Annotated[float | None, Query(gt=0, le=1e9, description="Latency ceiling in milliseconds.")]

MaxSize = Annotated[float | None, Query(gt=0, le=1e9, description="Largest stored size in millions of bytes.")]


@router.get("", response_model=TrialView, responses=responses(404, 409, 422))
def get_best(
    job_id: str,
    session: ReadSession,
    principal: Reader,
    max_drop: MaxDrop = None,
    max_latency_ms: MaxLatency = None,
    max_size_mb: MaxSize = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The best model so far by the job's goal, or by the one given here."""
    if max_drop is not None and max_latency_ms is not None:
        raise InvalidInputError("Give max_drop or max_latency_ms, not both.", hint="Leave one out.")
    given = Goal(max_drop=max_drop, max_latency_ms=max_latency_ms, max_size_mb=max_size_mb)
    goal = None if given == Goal() else given
    return conditional(search.best(session, get_owned(session, Job, job_id, principal), goal), if_none_match)
