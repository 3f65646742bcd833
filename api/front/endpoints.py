"""``/v1/jobs/{id}/front``."""

from fastapi import APIRouter
from fastapi import Response

from api.auth import Reader
from api.etags import IfNoneMatch
from api.etags import conditional
from api.ownership import get_owned
from api.problems import responses
from api.services import ReadSession
from infra.database.models import Job
from search import service as search
from search.views import FrontView

router = APIRouter(prefix="/v1/jobs/{job_id}/front", tags=["front"])


@router.get("", response_model=FrontView, responses=responses(404))
def get_front(job_id: str, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """The Pareto front at this moment with the baselines beside it; also while running, after cancel, after failure."""
    return conditional(search.front(session, get_owned(session, Job, job_id, principal)), if_none_match)
