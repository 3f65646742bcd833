"""Ask for an export: a row and a step, once per trial and format."""

from sqlmodel import Session
from sqlmodel import select

from api.exports.schemas import ExportCreate
from infra.database.models import Export
from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from infra.errors import ConflictError
from infra.errors import NotFoundError
from infra.steps import create_step
from search import service as search

EXPORTABLE = ("complete", "evaluated")
"""States of a trial whose artifact was built."""


def choose_trial(session: Session, job: Job, body: ExportCreate) -> Trial:
    """Return the trial that is meant.

    Raises:
        NotFoundError: No such trial, or nothing has been measured yet.
        ConflictError: The trial was not built.
    """
    if body.trial is None:
        best = search.best(session, job, body.goal)
        trial = session.get(Trial, best.id)
    else:
        trial = session.exec(select(Trial).where(Trial.job_id == job.id, Trial.number == body.trial)).one_or_none()
    if trial is None:
        raise NotFoundError(f"The job has no trial {body.trial}.", hint=f"GET /v1/jobs/{job.id}/trials lists them.")
    if trial.state not in EXPORTABLE:
        raise ConflictError(
            f"Trial {trial.number} is {trial.state}.", hint="Choose a complete trial, such as one of the front."
        )
    return trial


def request_export(session: Session, job: Job, trial: Trial, body: ExportCreate) -> tuple[Export, bool]:
    """Return the export of the trial in this format, and whether it is new; a failed one is tried again."""
    session.exec(select(Trial.id).where(Trial.id == trial.id).with_for_update())  # one request at a time decides
    known = session.exec(select(Export).where(Export.trial_id == trial.id, Export.format == body.format)).one_or_none()
    if known is not None and known.state != "failed":
        return known, False
    export = known or Export(job_id=job.id, trial_id=trial.id, format=body.format)
    export.state, export.error = "queued", None
    session.add(export)
    session.flush()
    attempts = session.exec(
        select(Step.id).where(Step.job_id == job.id, Step.trial_id == trial.id, Step.kind == "export")
    )
    create_step(
        session,
        job_id=job.id,
        trial_id=trial.id,
        kind="export",
        key=f"export:{export.id}:{len(attempts.all())}",
        queue="compute",
        payload={"export_id": export.id, "format": body.format},
        priority=min(9, job.priority + 1),
    )
    return export, True
