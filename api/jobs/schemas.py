"""Bodies of the jobs resource."""

from datetime import datetime
from typing import Annotated
from typing import Any

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from infra.database.models import Job
from search.requests import JobRequest


class JobChange(BaseModel):
    """What can be changed of a job that is not over."""

    model_config = ConfigDict(extra="forbid")

    priority: Annotated[int, Field(ge=0, le=9)]
    """0 to 9; 9 is served first."""


class TrialCounts(BaseModel):
    """Trials of a job by state."""

    total: int
    queued: int
    evaluated: int
    complete: int
    rejected: int
    failed: int
    cancelled: int


class Progress(BaseModel):
    """How far a job is."""

    trials: TrialCounts
    elapsed_seconds: float
    """Since the start, without times in which the service did not run: what counts against the budget."""
    remaining_seconds: float | None
    """Upper estimate from the time budget; null without one, and 0 when the job is over."""


class BestSoFar(BaseModel):
    """The best model in a few numbers; ``GET /v1/jobs/{id}/best`` has all."""

    trial: int
    name: str
    verdict: str
    message: str
    """The verdict in words."""
    confirmed: bool
    speedup: float | None
    """Against the dense fp32 model, by the job's objective: 2.0 is half the time, or half the memory."""
    speedup_vs_int8: float | None
    latency_ms: float | None
    drop: float | None
    fidelity: float | None
    size_bytes: int | None


class JobView(BaseModel):
    """A job."""

    id: str
    name: str | None
    state: str
    """``queued``, ``running``, ``succeeded``, ``failed`` or ``cancelled``."""
    stage: str
    """``queued``, ``inspect``, ``prepare``, ``table``, ``search``, ``recover``, ``finalise`` or ``done``."""
    priority: int
    """0 to 9; 9 is served first."""
    cancel_requested: bool
    request: JobRequest
    error: dict[str, Any] | None
    """``code``, ``title``, ``message``, ``hint``, ``errors`` of a job that failed."""
    summary: dict[str, Any] | None
    """Of a job that succeeded: the verdict, the best model, where the time went."""
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class JobDetails(JobView):
    """A job with its progress."""

    progress: Progress
    best: BestSoFar | None
    """The best model so far by the job's goal, or null while nothing is measured."""


def job_view(job: Job) -> JobView:
    """Describe a job."""
    return JobView(
        id=job.id,
        name=job.name,
        state=job.state,
        stage=job.stage,
        priority=job.priority,
        cancel_requested=job.cancel_requested_at is not None,
        request=JobRequest.model_validate(job.request),
        error=job.error,
        summary=job.summary,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )
