"""``/v1/jobs/{id}/exports`` and ``/v1/exports/{id}``."""

from fastapi import APIRouter
from fastapi import Request
from fastapi import Response
from fastapi.responses import JSONResponse
from sqlmodel import Session
from sqlmodel import select

from api.auth import Principal
from api.auth import Reader
from api.auth import Submitter
from api.etags import IfNoneMatch
from api.etags import conditional
from api.exports import service
from api.exports.files import send_blob
from api.exports.schemas import ExportCreate
from api.exports.schemas import ExportView
from api.exports.schemas import export_view
from api.idempotency import Once
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
from infra.database.models import Export
from infra.database.models import Job
from infra.database.models import Trial
from infra.errors import ConflictError
from infra.errors import NotFoundError

router = APIRouter(tags=["exports"])


def _get(session: Session, export_id: str, principal: Principal) -> tuple[Export, int]:
    statement = (
        select(Export, Trial.number)
        .where(Export.id == export_id, Trial.id == Export.trial_id)
        .where(Job.id == Export.job_id, Job.owner == principal.id)
    )
    found = session.exec(statement).one_or_none()
    if found is None:
        raise NotFoundError(f"There is no export {export_id[:100]!r}.", hint="GET /v1/jobs/{id}/exports lists them.")
    return found


@router.post(
    "/v1/jobs/{job_id}/exports",
    status_code=202,
    response_model=ExportView,
    responses=responses(404, 409, 422, http_200={"model": ExportView, "description": "It was asked for before."}),
)
def create_export(
    job_id: str, body: ExportCreate, session: WriteSession, principal: Submitter, once: Once
) -> JSONResponse:
    """Make a model downloadable: the best one, or a trial by number. Poll the answer's ``Location`` until ``ready``."""
    job = get_owned(session, Job, job_id, principal)

    def create() -> JSONResponse:
        trial = service.choose_trial(session, job, body)
        export, new = service.request_export(session, job, trial, body)
        return created(export_view(export, trial.number), f"/v1/exports/{export.id}", 202 if new else 200)

    return once.run(session, principal, body, create)


@router.get("/v1/jobs/{job_id}/exports", response_model=Page[ExportView], responses=responses(404, 422))
def list_exports(
    job_id: str, session: ReadSession, principal: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Page[ExportView]:
    """List the exports of a job, newest first."""
    get_owned(session, Job, job_id, principal)
    rows, following = page_of(session, select(Export).where(Export.job_id == job_id), Export, limit, cursor)
    numbers = dict(session.exec(select(Trial.id, Trial.number).where(Trial.job_id == job_id)).all()) if rows else {}
    return Page(items=[export_view(row, numbers[row.trial_id]) for row in rows], next_cursor=following)


@router.get("/v1/exports/{export_id}", response_model=ExportView, responses=responses(404))
def get_export(export_id: str, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """Read an export: its state, and its files when it is ready."""
    return conditional(export_view(*_get(session, export_id, principal)), if_none_match)


_FILE_RESPONSES = responses(
    404,
    409,
    http_200={"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
    http_206={"description": "The requested range."},
    http_304={"description": "The client has it already."},
    http_416={"description": "The range lies outside of the file."},
)


@router.head("/v1/exports/{export_id}/files/{name:path}", response_class=Response, responses=responses(404, 409))
def describe_file(
    export_id: str, name: str, request: Request, services: CurrentServices, principal: Reader
) -> Response:
    """Ask for size and hash of a file without downloading it."""
    return download(export_id, name, request, services, principal)


@router.get("/v1/exports/{export_id}/files/{name:path}", response_class=Response, responses=_FILE_RESPONSES)
def download(export_id: str, name: str, request: Request, services: CurrentServices, principal: Reader) -> Response:
    """Download a file; ``ETag`` is its sha256, ``Range`` is supported."""
    with services.database.read_session() as session:
        export, _ = _get(session, export_id, principal)
    if export.state != "ready":
        raise ConflictError(f"The export is {export.state}.", hint="Wait until its state is ready.")
    file = next((file for file in export.files if file["name"] == name), None)
    if file is None:
        names = ", ".join(file["name"] for file in export.files)
        raise NotFoundError(f"The export has no file {name[:100]!r}.", hint=f"It has {names}.")
    return send_blob(request, services, name=name, sha256=file["sha256"], size=file["size"])
