"""Bodies of the exports resource."""

from datetime import datetime
from typing import Annotated
from typing import Any
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from infra.database.models import Export
from search.requests import Goal

Format = Literal["onnx", "torch"]


class ExportCreate(BaseModel):
    """Which model to make downloadable, in which form."""

    model_config = ConfigDict(extra="forbid")

    format: Format = "onnx"
    """``onnx`` gives a baseline as the file that was measured, which may be OpenVINO's own form or a ``.pt2`` file."""
    trial: Annotated[int, Field(ge=0, le=1 << 31)] | None = None
    """Number of the trial; without it the best by ``goal``."""
    goal: Goal | None = None
    """Without it the goal of the job."""


class ExportFile(BaseModel):
    """A file to download."""

    name: str
    sha256: str
    size: int
    url: str
    """Path on this server; supports ranges."""


class ExportView(BaseModel):
    """A downloadable form of one trial."""

    id: str
    job_id: str
    trial_id: str
    trial: int
    """The trial's number."""
    format: str
    state: str
    """``queued``, ``ready`` or ``failed``."""
    files: list[ExportFile]
    error: dict[str, Any] | None
    created_at: datetime


def export_view(export: Export, number: int) -> ExportView:
    """Describe an export."""
    files = [
        ExportFile(
            name=file["name"],
            sha256=file["sha256"],
            size=file["size"],
            url=f"/v1/exports/{export.id}/files/{quote(file['name'])}",
        )
        for file in export.files
    ]
    return ExportView(
        id=export.id,
        job_id=export.job_id,
        trial_id=export.trial_id,
        trial=number,
        format=export.format,
        state=export.state,
        files=files,
        error=export.error,
        created_at=export.created_at,
    )
