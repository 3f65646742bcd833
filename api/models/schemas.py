"""Bodies of the models resource."""

from datetime import datetime
from typing import Annotated
from typing import Any

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from infra.database.models import Model
from infra.database.models import ModelFile

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class ModelCreate(BaseModel):
    """A new model."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    server_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A folder on the server's disk to read instead of an upload; only where the operator allows it."""


class FileView(BaseModel):
    """A file of a model."""

    name: str
    sha256: str | None
    """``null`` for a file that is not needed and was not kept."""
    size: int
    stored: bool


class ModelView(BaseModel):
    """A model."""

    id: str
    name: str
    state: str
    """``uploading``, ``ready`` or ``rejected``."""
    architecture: str | None
    facts: dict[str, Any]
    """Once ready: ``model_type``, ``layers``, ``parameters``, ``bytes``, ``tasks``, ``labels``, and more."""
    error: dict[str, Any] | None
    files: list[FileView]
    created_at: datetime


def file_view(file: ModelFile) -> FileView:
    """Describe a stored file."""
    return FileView(name=file.name, sha256=file.sha256, size=file.size, stored=True)


def model_view(model: Model, files: list[ModelFile]) -> ModelView:
    """Describe a model with its files."""
    return ModelView(
        id=model.id,
        name=model.name,
        state=model.state,
        architecture=model.architecture,
        facts=model.facts,
        error=model.error,
        files=[file_view(file) for file in files],
        created_at=model.created_at,
    )
