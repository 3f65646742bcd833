"""``/v1/models``."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter
from fastapi import Depends
from fastapi import Request
from fastapi import Response
from fastapi.responses import JSONResponse

from api import audit
from api.auth import Reader
from api.auth import Submitter
from api.bodies import RAW_BODY
from api.bodies import ReceivedBody
from api.bodies import receive_body
from api.etags import IfMatch
from api.etags import IfNoneMatch
from api.etags import check_unchanged
from api.etags import conditional
from api.etags import etag_of_view
from api.idempotency import Once
from api.models import repository
from api.models import service
from api.models.schemas import FileView
from api.models.schemas import ModelCreate
from api.models.schemas import ModelView
from api.models.schemas import file_view
from api.models.schemas import model_view
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
from infra.database.models import Model
from infra.errors import ConflictError
from infra.uploads.filenames import IGNORED
from infra.uploads.filenames import check_name
from infra.uploads.filenames import size_limit

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.post("", status_code=201, response_model=ModelView, responses=responses(403, 409, 422))
def create_model(body: ModelCreate, services: CurrentServices, principal: Submitter, once: Once) -> JSONResponse:
    """Create a model. Then PUT its files and POST ``complete``; or give a ``server_path`` and it is ready at once."""
    with services.database.read_session() as session:
        if (answer := once.answered(session, principal, body)) is not None:
            return answer
    model = Model(owner=principal.id, name=body.name)
    found = service.read_server_path(services, body.server_path) if body.server_path is not None else None
    with services.database.write_session() as session:

        def create() -> JSONResponse:
            session.add(model)
            session.flush()
            if found is not None:
                service.add_ready_model(session, services, model, *found)
                session.flush()
            files = repository.files_of(session, [model.id])[model.id]
            return created(model_view(model, files), f"/v1/models/{model.id}")

        return once.run(session, principal, body, create)


@router.get("", response_model=Page[ModelView], responses=responses(422))
def list_models(session: ReadSession, principal: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[ModelView]:
    """List the models of this API key, newest first."""
    rows, following = page_of(session, repository.owned_by(principal.id), Model, limit, cursor)
    files = repository.files_of(session, [model.id for model in rows])
    return Page(items=[model_view(model, files[model.id]) for model in rows], next_cursor=following)


@router.get("/{model_id}", response_model=ModelView, responses=responses(404))
def get_model(model_id: str, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """Read a model."""
    model = get_owned(session, Model, model_id, principal)
    return conditional(model_view(model, repository.files_of(session, [model_id])[model_id]), if_none_match)


def _target(model_id: str, name: str, services: CurrentServices, principal: Submitter) -> Model:
    """Everything that can be refused before the body is read; no session stays open while it is."""
    if name not in IGNORED:
        check_name(name)
    with services.database.read_session() as session:
        model = get_owned(session, Model, model_id, principal)
    repository.check_uploading(model)
    return model


async def _file_body(
    request: Request, name: str, services: CurrentServices, _target: Annotated[Model, Depends(_target)]
) -> AsyncIterator[ReceivedBody]:
    largest = services.settings.max_upload_bytes
    limit = (1 << 24) if name in IGNORED else size_limit(name, largest)
    async with receive_body(request, services.staging, limit) as body:
        yield body


@router.put(
    "/{model_id}/files/{name:path}",
    response_model=FileView,
    responses=responses(404, 409, 413, 422),
    openapi_extra=RAW_BODY,
)
def put_model_file(
    name: str,
    services: CurrentServices,
    model: Annotated[Model, Depends(_target)],
    body: Annotated[ReceivedBody, Depends(_file_body, scope="function")],
) -> FileView:
    """Upload one file; the body is the file. It is verified as it arrives, and replaces one of the same name."""
    if name in IGNORED:
        return FileView(name=name, sha256=None, size=body.size, stored=False)
    ref = service.store_file(services, name, body.path, body.sha256)
    with services.database.write_session() as session:
        return file_view(repository.put_file_row(session, model, name, ref))


@router.post("/{model_id}/complete", response_model=ModelView, responses=responses(404, 409, 422))
def complete_model(model_id: str, services: CurrentServices, principal: Submitter) -> ModelView:
    """Say that all files are there: the model as a whole is verified and becomes ``ready``. Repeat it freely."""
    with services.database.read_session() as session:
        model = get_owned(session, Model, model_id, principal)
        files = repository.files_of(session, [model_id])[model_id]
    if model.state == "ready":
        return model_view(model, files)
    repository.check_uploading(model)
    facts = service.verify_stored(services, files)
    with services.database.write_session() as session:
        current = get_owned(session, Model, model_id, principal, lock=True)
        if current.state == "ready":  # somebody else completed it at the same time
            return model_view(current, repository.files_of(session, [model_id])[model_id])
        if current.version != model.version:
            raise ConflictError("A file changed while the model was verified.", hint="Complete it again.")
        service.mark_ready(current, facts)
        session.add(current)
        return model_view(current, files)


@router.delete("/{model_id}", status_code=204, responses=responses(404, 409, 412))
def delete_model(model_id: str, session: WriteSession, principal: Submitter, if_match: IfMatch = None) -> None:
    """Delete a model that no job uses."""
    model = get_owned(session, Model, model_id, principal)
    check_unchanged(etag_of_view(model_view(model, repository.files_of(session, [model_id])[model_id])), if_match)
    if repository.is_used(session, model_id):
        raise ConflictError(f"Jobs use the model {model_id}.", hint="Delete the jobs first.")
    session.delete(model)
    audit.record(session, principal, "model.delete", model_id, name=model.name)
