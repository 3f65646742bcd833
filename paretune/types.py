"""What the client returns. Fields that a newer service adds are kept as attributes."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel
from pydantic import ConfigDict

JsonObject = dict[str, Any]

END_STATES = frozenset({"succeeded", "failed", "cancelled"})


class _Result(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Model(_Result):
    """A model on the service."""

    id: str
    name: str
    state: str
    architecture: str | None
    facts: JsonObject
    error: JsonObject | None
    created_at: datetime


class Dataset(_Result):
    """A dataset on the service."""

    id: str
    name: str
    format: str
    columns: list[str]
    rows: int
    size: int
    sha256: str
    created_at: datetime


class Device(_Result):
    """A registered device."""

    id: str
    name: str
    profiler: str
    options: JsonObject
    capabilities: JsonObject
    facts: JsonObject
    created_at: datetime


class Job(_Result):
    """A compression job; ``progress`` and ``best`` are there when it was read by id."""

    id: str
    name: str | None
    state: str
    stage: str
    priority: int = 5
    cancel_requested: bool
    request: JsonObject
    error: JsonObject | None
    summary: JsonObject | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    progress: JsonObject | None = None
    best: JsonObject | None = None

    @property
    def is_over(self) -> bool:
        """Whether the job has reached an end state."""
        return self.state in END_STATES


class Event(_Result):
    """Something that happened to a job."""

    id: int
    kind: str
    """``state``, ``stage``, ``trial``, ``progress``, ``notice`` or ``error``."""
    payload: JsonObject
    created_at: datetime


class ExportFile(_Result):
    """A downloadable file."""

    name: str
    sha256: str
    size: int
    url: str


class Export(_Result):
    """A downloadable form of one trial."""

    id: str
    job_id: str
    trial_id: str
    trial: int
    format: str
    state: str
    files: list[ExportFile]
    error: JsonObject | None
    created_at: datetime


class Key(_Result):
    """An API key; ``key`` is there only in the answer that made it."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    max_active_jobs: int | None = None
    max_workers: int | None = None
    max_priority: int | None = None
    key: str | None = None
