"""``/v1/uploads``: create, PATCH pieces at ``Upload-Offset``, HEAD to resume, complete."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter
from fastapi import Depends
from fastapi import Header
from fastapi import Request
from fastapi import Response
from fastapi.responses import JSONResponse

from api.auth import Submitter
from api.bodies import RAW_BODY
from api.bodies import ReceivedBody
from api.bodies import receive_body
from api.idempotency import Once
from api.idempotency import OnceByUrl
from api.ownership import get_owned
from api.problems import responses
from api.responses import created
from api.services import CurrentServices
from api.services import ReadSession
from api.services import WriteSession
from api.uploads import service
from api.uploads.schemas import UploadComplete
from api.uploads.schemas import UploadCreate
from api.uploads.schemas import UploadResult
from api.uploads.schemas import UploadView
from api.uploads.schemas import upload_view
from infra.database.models import Upload
from infra.errors import NotFoundError

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


@router.post("", status_code=201, response_model=UploadView, responses=responses(404, 409, 413, 422))
def create_upload(
    body: UploadCreate, services: CurrentServices, session: WriteSession, principal: Submitter, once: Once
) -> JSONResponse:
    """Announce a file; then PATCH its pieces in order."""

    def create() -> JSONResponse:
        service.check_target(session, services, principal, body)
        upload = Upload(
            owner=principal.id,
            kind=body.kind,
            target_id=body.model_id,
            name=body.name,
            length=body.length,
            sha256=body.sha256,
        )
        session.add(upload)
        return created(upload_view(upload), f"/v1/uploads/{upload.id}")

    return once.run(session, principal, body, create)


@router.head("/{upload_id}", status_code=204, responses=responses(404))
def get_offset(upload_id: str, session: ReadSession, principal: Submitter) -> Response:
    """Ask how much has arrived: the answer has ``Upload-Offset`` and ``Upload-Length``."""
    upload = get_owned(session, Upload, upload_id, principal)
    headers = {
        "Upload-Offset": str(upload.offset),
        "Upload-Length": str(upload.length),
        "Cache-Control": "no-store",
    }
    return Response(status_code=204, headers=headers)


@router.get("/{upload_id}", response_model=UploadView, responses=responses(404))
def get_upload(upload_id: str, session: ReadSession, principal: Submitter) -> UploadView:
    """Read an upload in progress."""
    return upload_view(get_owned(session, Upload, upload_id, principal))


UploadOffset = Annotated[int, Header(ge=0, le=1 << 50, description="Where in the file this piece begins.")]


def _target(upload_id: str, upload_offset: UploadOffset, services: CurrentServices, principal: Submitter) -> Upload:
    with services.database.read_session() as session:  # closed before the body is read
        upload = get_owned(session, Upload, upload_id, principal)
    if upload_offset != upload.offset:
        raise service.wrong_offset(upload)
    return upload


async def _piece(
    request: Request, services: CurrentServices, upload: Annotated[Upload, Depends(_target)]
) -> AsyncIterator[ReceivedBody]:
    async with receive_body(request, services.staging, upload.length - upload.offset) as body:
        yield body


@router.patch("/{upload_id}", status_code=204, responses=responses(404, 409, 413, 422), openapi_extra=RAW_BODY)
def append(
    upload_offset: UploadOffset,
    services: CurrentServices,
    upload: Annotated[Upload, Depends(_target)],
    body: Annotated[ReceivedBody, Depends(_piece, scope="function")],
) -> Response:
    """Send the next piece; the body is its bytes. The answer has the new ``Upload-Offset``."""
    offset = service.append_piece(services, upload, upload_offset, body)
    return Response(status_code=204, headers={"Upload-Offset": str(offset)})


@router.post("/{upload_id}/complete", response_model=UploadResult, responses=responses(404, 409, 422))
def complete_upload(
    upload_id: str, services: CurrentServices, principal: Submitter, once: OnceByUrl, body: UploadComplete | None = None
) -> JSONResponse:
    """Say that all pieces are there: the file is checked and becomes a model's file or a dataset.

    The answer comes when all is done, which takes minutes for a large file. The upload is gone then, but for a day
    the same request gets the same answer: repeat it when the answer is lost.
    """
    announced = body.sha256 if body else None
    with services.database.read_session() as session:
        try:
            upload = get_owned(session, Upload, upload_id, principal)
        except NotFoundError:
            if (answer := once.answered(session, principal, None)) is None:
                raise
            service.check_result(answer, announced)
            return answer
    write = service.complete(services, principal, upload, announced)
    with services.database.write_session() as session:
        return once.run(session, principal, None, lambda: JSONResponse(write(session).model_dump(mode="json")))


@router.delete("/{upload_id}", status_code=204, responses=responses(404))
def delete_upload(upload_id: str, session: WriteSession, principal: Submitter) -> None:
    """Give an upload up."""
    session.delete(get_owned(session, Upload, upload_id, principal))
