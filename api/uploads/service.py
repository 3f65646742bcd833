"""Pieces of a file: each a blob, joined at the end. Any API process can take any piece."""

import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from fastapi.responses import JSONResponse
from sqlalchemy import delete
from sqlalchemy import func
from sqlalchemy import update
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from api.auth import Principal
from api.bodies import ReceivedBody
from api.datasets.schemas import dataset_view
from api.datasets.service import store_dataset
from api.models import repository as models
from api.models.schemas import file_view
from api.models.service import store_file
from api.ownership import get_owned
from api.services import Services
from api.uploads.schemas import UploadCreate
from api.uploads.schemas import UploadResult
from infra.blobs import put_file
from infra.clock import utcnow
from infra.database.models import Model
from infra.database.models import Upload
from infra.errors import ConflictError
from infra.errors import InvalidInputError
from infra.errors import RateLimitedError
from infra.errors import TooLargeError
from infra.store.base import copy_and_hash
from infra.store.verified import read_verified
from infra.uploads.dataset_file import format_of
from infra.uploads.filenames import check_name
from infra.uploads.filenames import size_limit

MAX_PARTS = 10_000
MAX_OPEN = 1000
"""Uploads in progress of one API key."""


def check_target(session: Session, services: Services, principal: Principal, body: UploadCreate) -> None:
    """Refuse at the start what would be refused at the end.

    Raises:
        ParetuneError: The name, size or model does not fit.
    """
    session.exec(
        delete(Upload).where(
            col(Upload.created_at) < utcnow() - timedelta(seconds=services.settings.retain_uploads_seconds)
        )
    )
    if session.exec(select(func.count()).where(Upload.owner == principal.id)).one() >= MAX_OPEN:
        raise RateLimitedError(f"{MAX_OPEN} uploads are in progress.", hint="Complete or delete some.")
    limit = services.settings.max_upload_bytes
    if body.model_id is None:
        format_of(body.name)
    else:
        check_name(body.name)
        limit = size_limit(body.name, limit)
        models.check_uploading(get_owned(session, Model, body.model_id, principal))
    if body.length > limit:
        raise TooLargeError(f"{body.name} may have at most {limit} bytes.", hint="Check that it is the right file.")


def wrong_offset(upload: Upload) -> ConflictError:
    """The error of a piece that does not continue the upload."""
    return ConflictError(
        f"The upload has {upload.offset} of {upload.length} bytes; the next piece must begin there.",
        hint="Ask for Upload-Offset with HEAD and continue from it.",
    )


def append_piece(services: Services, upload: Upload, offset: int, body: ReceivedBody) -> int:
    """Store a piece and move the offset; return the new offset.

    Raises:
        ConflictError: Another piece came first.
        InvalidInputError: The piece is empty, or there are too many.
    """
    if body.size == 0 or len(upload.parts) >= MAX_PARTS:
        raise InvalidInputError("The piece is empty or too small.", hint="Send pieces of at least one MiB.")
    ref = put_file(services.database, services.store, body.path, expected_sha256=body.sha256)
    with services.database.write_session() as session:
        moved = session.execute(
            update(Upload)
            .where(col(Upload.id) == upload.id, col(Upload.offset) == offset)
            .values(offset=offset + body.size, parts=[*upload.parts, ref.sha256])
            .returning(col(Upload.offset))
            .execution_options(synchronize_session=False)
        ).scalar_one_or_none()
    if moved is None:
        raise ConflictError("Another piece of this upload came first.", hint="Ask for Upload-Offset with HEAD.")
    return int(moved)


@contextmanager
def _joined(services: Services, upload: Upload) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=services.staging, prefix="join-") as target:
        for sha256 in upload.parts:
            target.writelines(read_verified(services.store.open(sha256), sha256))
        target.flush()
        yield Path(target.name)


WriteResult = Callable[[Session], UploadResult]
"""Writes the rows of a completed upload and removes its own; to be called once in a write session."""


def complete(services: Services, principal: Principal, upload: Upload, sha256: str | None) -> WriteResult:
    """Join the pieces, check the file and store it as what it is for; its rows are then for the caller to write.

    Raises:
        ConflictError: Bytes are missing.
        InvalidInputError: The hash is another one, or the file is refused.
    """
    if upload.offset != upload.length:
        raise wrong_offset(upload)
    with _joined(services, upload) as path:
        with path.open("rb") as stream:
            found = copy_and_hash(stream, None).sha256
        _check_sha256(found, sha256)
        _check_sha256(found, upload.sha256)
        if upload.kind == "dataset":
            return _become_dataset(services, principal, upload, path, found)
        return _become_model_file(services, principal, upload, path, found)


def check_result(answer: JSONResponse, sha256: str | None) -> None:
    """Compare what an upload became with the hash that a repeated request announces for it.

    Raises:
        InvalidInputError: The hash is another one.
    """
    result = UploadResult.model_validate_json(bytes(answer.body))
    became = result.file or result.dataset
    assert became is not None
    assert became.sha256 is not None
    _check_sha256(became.sha256, sha256)


def _check_sha256(found: str, announced: str | None) -> None:
    if announced is not None and announced != found:
        raise InvalidInputError(
            f"The file received has the sha256 {found}, but {announced} was announced.",
            hint="Send the file again, in a new upload.",
            errors=[{"field": "sha256", "message": "is not that of the received bytes"}],
        )


def _become_dataset(services: Services, principal: Principal, upload: Upload, path: Path, sha256: str) -> WriteResult:
    dataset = store_dataset(
        services, owner=principal.id, name=upload.name, data_format=format_of(upload.name), path=path, sha256=sha256
    )

    def write(session: Session) -> UploadResult:
        _take(session, upload)
        session.add(dataset)
        return UploadResult(file=None, dataset=dataset_view(dataset))

    return write


def _become_model_file(
    services: Services, principal: Principal, upload: Upload, path: Path, sha256: str
) -> WriteResult:
    model_id = upload.target_id
    assert model_id is not None
    ref = store_file(services, upload.name, path, sha256)

    def write(session: Session) -> UploadResult:
        _take(session, upload)
        model = get_owned(session, Model, model_id, principal)
        row = models.put_file_row(session, model, upload.name, ref)
        return UploadResult(file=file_view(row), dataset=None)

    return write


def _take(session: Session, upload: Upload) -> None:
    """Remove the upload's row, which says that there is no result yet."""
    current = session.get(Upload, upload.id, with_for_update=True)
    if current is None:
        raise ConflictError("The upload was deleted meanwhile.", hint="Send the file again, in a new upload.")
    session.delete(current)
