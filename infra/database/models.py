"""Every table. Rows are not validated here: what comes from outside is validated by pydantic models before.

The life of a job is written in ``job``, ``step``, ``trial`` and ``event``. A *step* is the unit of work that a worker
claims:
short, idempotent, leased. A *trial* is one candidate of a job. A *blob* is content-addressed bytes in the artifact
store.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger
from sqlalchemy import Column
from sqlalchemy import ForeignKey
from sqlalchemy import Index
from sqlalchemy import UniqueConstraint
from sqlmodel import Field
from sqlmodel import SQLModel

from infra.clock import utcnow
from infra.clock import uuid7
from infra.database.types import UTCDateTime
from infra.database.types import json_type

JsonObject = dict[str, Any]

SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def _id() -> Any:
    return Field(default_factory=uuid7, primary_key=True, max_length=36)


def _created() -> Any:
    return Field(default_factory=utcnow, sa_type=UTCDateTime, index=True)


def _time() -> Any:
    return Field(default=None, sa_type=UTCDateTime)


def _bytes() -> Any:
    return Field(default=0, sa_type=BigInteger)


def _json() -> Any:
    return Field(default_factory=dict, sa_type=json_type())


def _json_or_none() -> Any:
    return Field(default=None, sa_type=json_type())


def _reference(target: str, *, nullable: bool = False, ondelete: str = "CASCADE") -> Any:
    return Field(
        default=None,
        sa_column=Column(ForeignKey(target, ondelete=ondelete), nullable=nullable, index=True),
    )


class ApiKey(SQLModel, table=True):
    """A hashed API key: ``prefix.secret`` is shown once, ``secret_hash`` is sha256 of the secret."""

    __tablename__ = "api_key"
    id: str = _id()
    name: str
    prefix: str = Field(unique=True)
    secret_hash: str
    scopes: list[str] = Field(default_factory=list, sa_type=json_type())
    created_at: datetime = _created()
    expires_at: datetime | None = _time()
    revoked_at: datetime | None = _time()
    max_active_jobs: int | None = None
    """Queued and running jobs; ``None``: the setting of the same name."""
    max_workers: int | None = None
    """Workers of one queue that may work for this key at a time; ``None``: no limit."""
    max_priority: int | None = None
    """Highest priority of its jobs; ``None``: 9."""


class Blob(SQLModel, table=True):
    """Bytes in the artifact store, named by their sha256. The row is written after the bytes are safe."""

    __tablename__ = "blob"
    sha256: str = Field(primary_key=True, max_length=64)
    size: int = _bytes()
    created_at: datetime = _created()


class Model(SQLModel, table=True):
    """An uploaded Hugging Face folder. States: ``uploading`` -> ``ready`` | ``rejected``."""

    __tablename__ = "model"
    id: str = _id()
    owner: str = Field(index=True)
    name: str
    state: str = "uploading"
    architecture: str | None = None
    facts: JsonObject = _json()
    """``model_type``, layers, hidden size, parameters, bytes."""
    error: JsonObject | None = _json_or_none()
    created_at: datetime = _created()
    version: int = 1


class ModelFile(SQLModel, table=True):
    """One file of a model folder: a blob under a name from the allow-list."""

    __tablename__ = "model_file"
    model_id: str = Field(sa_column=Column(ForeignKey("model.id", ondelete="CASCADE"), primary_key=True))
    name: str = Field(primary_key=True)
    sha256: str = Field(sa_column=Column(ForeignKey("blob.sha256"), nullable=False, index=True))
    size: int = _bytes()


class Upload(SQLModel, table=True):
    """A resumable upload in progress: its pieces are blobs until they are complete and joined."""

    __tablename__ = "upload"
    id: str = _id()
    owner: str
    kind: str
    """``model-file`` | ``dataset``."""
    target_id: str | None = None
    name: str
    length: int = _bytes()
    offset: int = _bytes()
    parts: list[str] = Field(default_factory=list, sa_type=json_type())
    """sha256 of the pieces received so far, in order."""
    sha256: str | None = None
    created_at: datetime = _created()


class Dataset(SQLModel, table=True):
    """A JSONL, CSV or Parquet file."""

    __tablename__ = "dataset"
    id: str = _id()
    owner: str = Field(index=True)
    name: str
    format: str
    columns: list[str] = Field(default_factory=list, sa_type=json_type())
    rows: int = 0
    sha256: str = Field(sa_column=Column(ForeignKey("blob.sha256"), nullable=False, index=True))
    size: int = _bytes()
    created_at: datetime = _created()


class Device(SQLModel, table=True):
    """A registered device profile: which profiler plugin, with which options, and what was found there."""

    __tablename__ = "device"
    id: str = _id()
    name: str = Field(unique=True)
    profiler: str
    options: JsonObject = _json()
    capabilities: JsonObject = _json()
    facts: JsonObject = _json()
    created_at: datetime = _created()


class Job(SQLModel, table=True):
    """What a user asked for. States: ``queued`` -> ``running`` -> ``succeeded`` | ``failed`` | ``cancelled``."""

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_owner_created", "owner", "created_at", "id"),
        Index("ix_job_owner_state_created", "owner", "state", "created_at", "id"),
    )
    id: str = _id()
    owner: str = Field(index=True)
    name: str | None = None
    state: str = Field(default="queued", index=True)
    stage: str = "queued"
    """``inspect`` | ``prepare`` | ``graphs`` | ``baselines`` | ``table`` | ``options`` | ``search`` | ``recover`` |
    ``finalise`` | ``done``."""
    request: JsonObject = _json()
    model_id: str = _reference("model.id", ondelete="RESTRICT")
    dataset_id: str = _reference("dataset.id", ondelete="RESTRICT")
    calibration_id: str | None = _reference("dataset.id", nullable=True, ondelete="RESTRICT")
    device_id: str = _reference("device.id", ondelete="RESTRICT")
    prepared: JsonObject | None = _json_or_none()
    """What the stages before the search found: anatomy, splits, dense quality, blobs (``{name: sha256}``)."""
    summary: JsonObject | None = _json_or_none()
    """The verdict and the break-down of wall time, written by ``finalise``."""
    error: JsonObject | None = _json_or_none()
    cancel_requested_at: datetime | None = _time()
    created_at: datetime = _created()
    started_at: datetime | None = _time()
    finished_at: datetime | None = _time()
    active_seconds: float = 0.0
    """Time since the start in which the service ran, up to ``active_at``: what counts against the budgets."""
    active_at: datetime | None = _time()
    idle_seconds: float = 0.0
    """The last part of ``active_seconds`` in this stage, in which no worker served the job."""
    stage_seconds: float = 0.0
    """``active_seconds`` when the stage began."""
    priority: int = 5
    version: int = 1


class Step(SQLModel, table=True):
    """A unit of work. States: ``queued`` -> ``running`` -> ``done`` | ``failed`` | ``cancelled``.

    The row is its own outbox entry: ``dispatched_at`` is null until a message was sent; the relay sends what is not.
    """

    __tablename__ = "step"
    __table_args__ = (
        UniqueConstraint("job_id", "key"),
        Index("ix_step_state_dispatched", "state", "dispatched_at"),
        Index("ix_step_queue_state", "queue", "state"),
        Index("ix_step_job_queue_started", "job_id", "queue", "started_at"),
        Index("ix_step_job_kind_state", "job_id", "kind", "state", "id"),
        Index("ix_step_finished_at", "finished_at"),
    )
    id: str = _id()
    job_id: str = _reference("job.id")
    trial_id: str | None = _reference("trial.id", nullable=True)
    kind: str
    """``inspect`` | ``prepare`` | ``table`` | ``tick`` | ``evaluate`` | ``measure`` | ``finalise`` | ``export`` |
    ``recover``."""
    key: str
    """Unique within the job: creating the same step twice is refused by the database."""
    queue: str
    """``search`` | ``compute`` | ``device.<name>``."""
    payload: JsonObject = _json()
    state: str = "queued"
    priority: int = 5
    attempt: int = 0
    max_attempts: int = 3
    not_before: datetime | None = _time()
    dispatched_at: datetime | None = _time()
    lease_owner: str | None = None
    lease_token: str | None = None
    lease_expires_at: datetime | None = _time()
    output: JsonObject | None = _json_or_none()
    error: JsonObject | None = _json_or_none()
    created_at: datetime = _created()
    started_at: datetime | None = _time()
    finished_at: datetime | None = _time()


class Trial(SQLModel, table=True):
    """One candidate of a job.

    States: ``queued`` -> ``evaluated`` -> ``complete``, or ``rejected`` (clearly worse, not measured), ``failed``,
    ``cancelled``.
    """

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("job_id", "number"), UniqueConstraint("job_id", "digest"))
    id: str = _id()
    job_id: str = _reference("job.id")
    number: int
    source: str
    """``baseline`` | ``preset`` | the strategy's name."""
    candidate: JsonObject = _json()
    """A :class:`compressors.recipe.Candidate`."""
    digest: str
    params: JsonObject | None = _json_or_none()
    """The sampler's parameters that gave the recipe."""
    sampler_state: JsonObject | None = _json_or_none()
    state: str = Field(default="queued", index=True)
    quality: JsonObject | None = _json_or_none()
    """:class:`profilers.types.Quality` on the search split."""
    holdout: JsonObject | None = _json_or_none()
    """The same on the held-out split, at the profiled shape; only for the final front and the baselines."""
    measurement: JsonObject | None = _json_or_none()
    """:class:`profilers.types.Measurement` taken during the search."""
    final_measurement: JsonObject | None = _json_or_none()
    """The same, repeated in fresh processes at the end."""
    predicted: JsonObject | None = _json_or_none()
    """What the latency table expected before measuring."""
    size_bytes: int | None = Field(default=None, sa_type=BigInteger)
    facts: JsonObject = _json()
    """Parameters, seconds to build, operator counts, notes."""
    error: JsonObject | None = _json_or_none()
    created_at: datetime = _created()
    finished_at: datetime | None = _time()


class Export(SQLModel, table=True):
    """A downloadable form of one trial. States: ``queued`` -> ``ready`` | ``failed``."""

    __tablename__ = "export"
    __table_args__ = (UniqueConstraint("trial_id", "format"),)
    id: str = _id()
    job_id: str = _reference("job.id")
    trial_id: str = _reference("trial.id")
    format: str
    """``onnx`` | ``torch``."""
    state: str = "queued"
    files: list[JsonObject] = Field(default_factory=list, sa_type=json_type())
    """``[{"name": ..., "sha256": ..., "size": ...}]``."""
    error: JsonObject | None = _json_or_none()
    created_at: datetime = _created()


class JobBlob(SQLModel, table=True):
    """A blob that a job needs: keeps it from garbage collection."""

    __tablename__ = "job_blob"
    job_id: str = Field(sa_column=Column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True))
    name: str = Field(primary_key=True)
    sha256: str = Field(sa_column=Column(ForeignKey("blob.sha256"), nullable=False, index=True))


class Event(SQLModel, table=True):
    """What happened to a job, in order; ``id`` is the SSE event id."""

    __tablename__ = "event"
    id: int | None = Field(default=None, primary_key=True)
    job_id: str = _reference("job.id")
    kind: str
    """``state`` | ``stage`` | ``trial`` | ``progress`` | ``notice`` | ``error``."""
    payload: JsonObject = _json()
    created_at: datetime = _created()


class DeviceLease(SQLModel, table=True):
    """A device measures one thing at a time."""

    __tablename__ = "device_lease"
    device_id: str = Field(sa_column=Column(ForeignKey("device.id", ondelete="CASCADE"), primary_key=True))
    token: str
    step_id: str
    expires_at: datetime = Field(sa_type=UTCDateTime)


class LatencyTable(SQLModel, table=True):
    """Measured building blocks, shared between jobs: ``key`` names architecture, device facts, workload and graph."""

    __tablename__ = "latency_table"
    id: str = _id()
    device_id: str = _reference("device.id")
    key: str = Field(unique=True)
    table: JsonObject = _json()
    created_at: datetime = _created()


class BestGraph(SQLModel, table=True):
    """The fastest graphs as measured, shared between jobs; ``key`` names architecture, device facts and workload."""

    __tablename__ = "best_graph"
    id: str = _id()
    device_id: str = _reference("device.id")
    key: str = Field(unique=True)
    found: JsonObject = _json()
    created_at: datetime = _created()


class SharedResult(SQLModel, table=True):
    """What jobs computed from a model and its data alone; ``key`` names the content, see ``infra.shared_results``."""

    __tablename__ = "shared_result"
    key: str = Field(primary_key=True)
    kind: str
    found: JsonObject = _json()
    created_at: datetime = _created()
    used_at: datetime = _created()


class SharedBlob(SQLModel, table=True):
    """A file of a shared result: keeps it from garbage collection."""

    __tablename__ = "shared_blob"
    key: str = Field(sa_column=Column(ForeignKey("shared_result.key", ondelete="CASCADE"), primary_key=True))
    name: str = Field(primary_key=True)
    sha256: str = Field(sa_column=Column(ForeignKey("blob.sha256"), nullable=False, index=True))


class SharedSource(SQLModel, table=True):
    """A file of a user from which a shared result was computed: the result goes when the file does."""

    __tablename__ = "shared_source"
    key: str = Field(sa_column=Column(ForeignKey("shared_result.key", ondelete="CASCADE"), primary_key=True))
    sha256: str = Field(primary_key=True)


class IdempotencyKey(SQLModel, table=True):
    """The answer that was given to a POST with an ``Idempotency-Key``."""

    __tablename__ = "idempotency_key"
    owner: str = Field(primary_key=True)
    route: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    request_hash: str
    status: int
    response: JsonObject = _json()
    created_at: datetime = _created()


class Counter(SQLModel, table=True):
    """Something that is counted over the life of the service, by whoever sees it."""

    __tablename__ = "counter"
    name: str = Field(primary_key=True)
    value: int = _bytes()


class AuditEntry(SQLModel, table=True):
    """Who did what: key management, device registration, deletion."""

    __tablename__ = "audit_entry"
    id: int | None = Field(default=None, primary_key=True)
    principal: str
    action: str
    target: str
    details: JsonObject = _json()
    created_at: datetime = _created()
