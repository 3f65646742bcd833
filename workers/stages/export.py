"""Writes the folder that a user downloads, and keeps every file of it as a blob."""

import shutil
from pathlib import Path

from sqlmodel import Session
from sqlmodel import select

from infra.database.models import Export
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.database.models import Trial
from infra.errors import NotFoundError
from infra.errors import ParetuneError
from infra.events import append_event
from search.audits import remarks
from search.candidates import recipe_of
from search.graph_choice import GraphChoice
from search.graph_choice import fixed_shape_note
from search.prepared import Prepared
from workers.stage import StageContext
from workers.stages.inputs import fetch_weights
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial
from workers.stages.inputs import prepared_inputs


def _get_export(session: Session, step: Step) -> Export:
    export = session.exec(select(Export).where(Export.id == step.payload["export_id"])).one_or_none()
    if export is None:
        raise NotFoundError("The export of this step is gone.", hint="Ask for it again.")
    return export


def form_notes(job: Job, trial: Trial, format_: str) -> list[str]:
    """Say what the second ONNX file, whose shape is fixed, is worth on the job's device."""
    recipe = recipe_of(trial.candidate)
    if format_ != "onnx" or recipe is None:
        return []
    form = Prepared.load(job.prepared).graph_defaults.form_of(recipe)
    chosen = (job.prepared or {}).get("graph_choices", {}).get(form)
    note = fixed_shape_note(GraphChoice.model_validate(chosen)) if chosen else None
    return [note] if note else []


class ExportStage:
    """Exports one trial as ONNX or torch, checked against the torch module before it is offered."""

    kind = "export"

    def work(self, context: StageContext) -> JsonObject:
        """Return the files of the folder: ``[{"name", "sha256", "size"}]``."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            trial = get_trial(session, context.step.trial_id)
            arguments = {
                "inputs": inputs.model_dump(mode="json"),
                "candidate": trial.candidate,
                "format": context.step.payload["format"],
                "provenance": {
                    "job_id": job.id,
                    "trial": trial.number,
                    "request": job.request,
                    "measurement": trial.final_measurement or trial.measurement,
                    "confirmed": trial.final_measurement is not None,
                    "quality": trial.holdout or trial.quality,
                    "search_quality": trial.quality,
                    "notes": [*remarks(trial), *form_notes(job, trial, context.step.payload["format"])],
                },
            }
        fetch_weights(context, inputs, trial.candidate)
        folder = Path(context.runner("compute").call("export", arguments)["folder"])
        files = []
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                ref = context.put_file(path)
                files.append({"name": path.relative_to(folder).as_posix(), "sha256": ref.sha256, "size": ref.size})
        shutil.rmtree(folder, ignore_errors=True)
        return {"files": files}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Offer the files."""
        export = _get_export(session, step)
        export.state, export.files, export.error = "ready", output["files"], None
        session.add(export)
        append_event(session, step.job_id, "notice", {"export_id": export.id, "state": "ready"})

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Say on the export why there is none; the job is not touched."""
        export = _get_export(session, step)
        export.state, export.error = "failed", error.to_dict()
        session.add(export)
        append_event(session, step.job_id, "error", {"export_id": export.id, **error.to_dict()})
