"""``/v1/jobs/{id}/report.html`` and ``.png``, and the same of single trials. The JSON is in :mod:`api.jobs`."""

from typing import Any

from fastapi import APIRouter
from fastapi import Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from api.auth import Reader
from api.etags import IfNoneMatch
from api.etags import etag_of
from api.etags import unless_known
from api.ownership import get_owned
from api.problems import responses
from api.reports.chart import chart_of
from api.reports.drawing import draw_front
from api.reports.drawing import draw_heatmap
from api.reports.heatmap import heatmap
from api.reports.page import POLICY
from api.reports.page import job_page
from api.reports.page import model_page
from api.reports.page import subject_of
from api.services import ReadSession
from api.trials.endpoints import Number
from api.trials.repository import trial_by_number
from api.version import VERSION
from infra.database.models import Job
from infra.errors import NotFoundError
from search import service as search

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["reports"])

_PAGE_HEADERS = {"Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'"}


class PngResponse(Response):
    """A picture."""

    media_type = "image/png"


_PAGE: dict[str, Any] = {"content": {"text/html": {"schema": {"type": "string"}}}}
_PICTURE: dict[str, Any] = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}


def _etag(form: str, *views: BaseModel) -> str:
    """Return the ETag of a form of these views without making the form: it follows from them and the code."""
    return etag_of("\n".join([VERSION, form, *(view.model_dump_json() for view in views)]).encode())


@router.get("/report.html", response_class=HTMLResponse, responses=responses(404, http_200=_PAGE))
def get_report_page(
    job_id: str, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """The report as a page for people: one file without script, which needs nothing from elsewhere."""
    report = search.report(session, get_owned(session, Job, job_id, principal))
    return unless_known(
        _etag("html", report), if_none_match, lambda: HTMLResponse(job_page(report), headers=_PAGE_HEADERS)
    )


@router.get("/report.png", response_class=PngResponse, responses=responses(404, http_200=_PICTURE))
def get_report_picture(
    job_id: str, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """The front with the baselines in it as a picture: speed-up against loss of quality."""
    report = search.report(session, get_owned(session, Job, job_id, principal))
    return unless_known(
        _etag("png", report), if_none_match, lambda: PngResponse(draw_front(chart_of(report), subject_of(report)))
    )


@router.get("/trials/{number}/report.html", response_class=HTMLResponse, responses=responses(404, 422, http_200=_PAGE))
def get_trial_page(
    job_id: str, number: Number, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """One model as a page for people: its numbers beside the baselines, what was removed, how to load it."""
    job = get_owned(session, Job, job_id, principal)
    trial = trial_by_number(session, job, number)
    report = search.report(session, job)
    return unless_known(
        _etag("html", report, trial),
        if_none_match,
        lambda: HTMLResponse(model_page(report, trial), headers=_PAGE_HEADERS),
    )


@router.get("/trials/{number}/report.png", response_class=PngResponse, responses=responses(404, 422, http_200=_PICTURE))
def get_trial_picture(
    job_id: str, number: Number, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """What was removed from one model as a picture: layers by kinds of compression."""
    job = get_owned(session, Job, job_id, principal)
    trial = trial_by_number(session, job, number)
    dense = (job.prepared or {}).get("anatomy") or {}
    rows = heatmap(trial, dense)
    if not rows:
        raise NotFoundError(
            f"There is no picture of trial {number}: nothing was removed from it.",
            hint="Baselines have none; report.html and report.png of the job show them among the others.",
        )
    title = f"trial {number}: {trial.name}"
    return unless_known(_etag("png", trial), if_none_match, lambda: PngResponse(draw_heatmap(rows, title)))
