"""``/v1/datasets``."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter
from fastapi import Depends
from fastapi import Query
from fastapi import Request
from fastapi import Response
from fastapi.responses import JSONResponse
from sqlmodel import col
from sqlmodel import select

from api import audit
from api.auth import Reader
from api.auth import Submitter
from api.bodies import RAW_BODY
from api.bodies import ReceivedBody
from api.bodies import receive_body
from api.datasets.schemas import DatasetView
from api.datasets.schemas import dataset_view
from api.datasets.service import store_dataset
from api.etags import IfNoneMatch
from api.etags import conditional
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
from infra.database.models import Dataset
from infra.database.models import Job
from infra.errors import ConflictError
from infra.uploads.dataset_file import DatasetFormat
from infra.uploads.dataset_file import format_of

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])

FileName = Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]


def _format(name: FileName, format: DatasetFormat | None = None) -> DatasetFormat:  # noqa: A002 - the query's name
    return format or format_of(name)


async def _file_body(
    request: Request,
    services: CurrentServices,
    _principal: Submitter,
    _checked: Annotated[DatasetFormat, Depends(_format)],
) -> AsyncIterator[ReceivedBody]:
    async with receive_body(request, services.staging, services.settings.max_upload_bytes) as body:
        yield body


@router.post(
    "", status_code=201, response_model=DatasetView, responses=responses(409, 413, 422), openapi_extra=RAW_BODY
)
def create_dataset(
    name: FileName,
    data_format: Annotated[DatasetFormat, Depends(_format)],
    services: CurrentServices,
    principal: Submitter,
    body: Annotated[ReceivedBody, Depends(_file_body, scope="function")],
    once: Once,
) -> JSONResponse:
    """Upload a dataset; the body is the file. JSONL (one object a line), CSV with a header, or Parquet."""
    payload = [name, data_format, body.sha256]
    with services.database.read_session() as session:
        if (answer := once.answered(session, principal, payload)) is not None:
            return answer
    dataset = store_dataset(
        services, owner=principal.id, name=name, data_format=data_format, path=body.path, sha256=body.sha256
    )
    with services.database.write_session() as session:

        def create() -> JSONResponse:
            session.add(dataset)
            return created(dataset_view(dataset), f"/v1/datasets/{dataset.id}")

        return once.run(session, principal, payload, create)


@router.get("", response_model=Page[DatasetView], responses=responses(422))
def list_datasets(
    session: ReadSession, principal: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Page[DatasetView]:
    """List the datasets of this API key, newest first."""
    statement = select(Dataset).where(Dataset.owner == principal.id)
    rows, following = page_of(session, statement, Dataset, limit, cursor)
    return Page(items=[dataset_view(dataset) for dataset in rows], next_cursor=following)


@router.get("/{dataset_id}", response_model=DatasetView, responses=responses(404))
def get_dataset(
    dataset_id: str, session: ReadSession, principal: Reader, if_none_match: IfNoneMatch = None
) -> Response:
    """Read what a dataset holds."""
    return conditional(dataset_view(get_owned(session, Dataset, dataset_id, principal)), if_none_match)


@router.delete("/{dataset_id}", status_code=204, responses=responses(404, 409))
def delete_dataset(dataset_id: str, session: WriteSession, principal: Submitter) -> None:
    """Delete a dataset that no job uses."""
    dataset = get_owned(session, Dataset, dataset_id, principal)
    trained = col(Job.request)["train_id"].as_string() == dataset_id
    used = (Job.dataset_id == dataset_id) | (Job.calibration_id == dataset_id) | trained
    if session.exec(select(Job.id).where(used).limit(1)).first() is not None:
        raise ConflictError(f"Jobs use the dataset {dataset_id}.", hint="Delete the jobs first.")
    session.delete(dataset)
    audit.record(session, principal, "dataset.delete", dataset_id, name=dataset.name)
