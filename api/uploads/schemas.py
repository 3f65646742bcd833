"""Bodies of the uploads resource."""

from datetime import datetime
from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import model_validator

from api.datasets.schemas import DatasetView
from api.models.schemas import FileView
from infra.database.models import Upload

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class UploadCreate(BaseModel):
    """A file to be sent in pieces."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["model-file", "dataset"]
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f\\]+$")]
    """For a dataset its suffix (.jsonl, .csv, .parquet) says the format."""
    length: Annotated[int, Field(ge=1, le=1 << 50)]
    """Size of the whole file in bytes."""
    model_id: str | None = None
    """The model that a ``model-file`` belongs to."""
    sha256: Sha256 | None = None
    """Of the whole file; checked at the end."""

    @model_validator(mode="after")
    def _fits_kind(self) -> "UploadCreate":
        if (self.kind == "model-file") != (self.model_id is not None):
            raise ValueError("model_id is required for a model-file, and only for that")
        return self


class UploadComplete(BaseModel):
    """The end of an upload."""

    model_config = ConfigDict(extra="forbid")

    sha256: Sha256 | None = None


class UploadView(BaseModel):
    """An upload in progress."""

    id: str
    kind: str
    name: str
    model_id: str | None
    length: int
    offset: int
    """Bytes received; the next piece begins here."""
    created_at: datetime


class UploadResult(BaseModel):
    """What an upload became: one of the two."""

    file: FileView | None
    dataset: DatasetView | None


def upload_view(upload: Upload) -> UploadView:
    """Describe an upload."""
    return UploadView(
        id=upload.id,
        kind=upload.kind,
        name=upload.name,
        model_id=upload.target_id,
        length=upload.length,
        offset=upload.offset,
        created_at=upload.created_at,
    )
