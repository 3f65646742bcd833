"""Names what a job's preparation is computed from, so that later jobs on the same content find it again."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Dataset
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import ModelFile
from infra.digests import json_digest
from infra.events import append_event
from infra.shared_results import keep_shared
from search.requests import JobRequest

VERSION = 5
"""Counts up when calibrations or option databases are computed in another way, so that old ones are not used."""


@dataclass(frozen=True)
class Content:
    """What calibration and option database depend on; the device is not in it.

    Attributes:
        facts: Digests of the user's files, and how they are read, split and cut.
        sources: The digests alone.
    """

    facts: JsonObject
    sources: frozenset[str]

    def key(self, kind: str, **settings: object) -> str:
        """Name a result of a kind that depends on ``settings`` as well."""
        parts = {"version": VERSION, "kind": kind, "content": self.facts, "settings": settings}
        return json_digest(parts)


def job_content(session: Session, job: Job) -> Content:
    """Return the content of a job. Whose job it is plays no part: who has the same bytes gets the same results."""
    request = JobRequest.model_validate(job.request)
    rows = session.exec(select(ModelFile).where(ModelFile.model_id == job.model_id).order_by(col(ModelFile.name)))
    files = {file.name: file.sha256 for file in rows}
    sets = {}
    for name, dataset_id in (("dataset", job.dataset_id), ("calibration", job.calibration_id)):
        row = session.exec(select(Dataset).where(Dataset.id == dataset_id)).one_or_none()
        sets[name] = None if row is None else [row.sha256, row.format]
    facts = {
        "model": files,
        "data": sets,
        "columns": request.columns.model_dump(mode="json"),
        # A label column that was asked for must exist; the default may be missing.
        "columns_given": sorted(request.columns.model_fields_set),
        "task": request.task,
        "seed": request.seed,
        "sequence_length": request.workload.sequence_length,
    }
    digests = [*files.values(), *(entry[0] for entry in sets.values() if entry is not None)]
    return Content(facts, frozenset(digests))


def share(
    session: Session,
    job: Job,
    kind: str,
    found: JsonObject,
    blobs: Mapping[str, str] | None = None,
    **settings: object,
) -> None:
    """Keep the result of a step for later jobs; arguments as for :meth:`Content.key` and ``keep_shared``."""
    content = job_content(session, job)
    keep_shared(session, content.key(kind, **settings), kind, found, blobs=blobs or {}, sources=content.sources)


def tell_shared(session: Session, job: Job, step: str, what: str) -> None:
    """Tell the job's watchers that a step had nothing to compute."""
    message = f"{what} of an earlier job on the same model and data: nothing to compute."
    append_event(session, job.id, "notice", {"step": step, "message": message, "shared": True})
