"""Times a candidate on the device: the second half of a trial."""

from pathlib import Path

from sqlmodel import Session

from compressors.description import Anatomy
from compressors.export.fusion import expected_fusions
from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Step
from search import coordinator
from search.candidates import recipe_of
from workers.operations.inputs import JobInputs
from workers.stage import StageContext
from workers.stages.base import TrialStage
from workers.stages.inputs import fetch_weights
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial
from workers.stages.inputs import prepared_inputs


def artifact_of(context: StageContext, inputs: JobInputs, candidate: JsonObject) -> JsonObject:
    """Return the candidate's artifact on this host; it is built again where it is missing."""
    arguments = {"inputs": inputs.model_dump(mode="json"), "candidate": candidate}
    found = context.runner("device").call("find_artifact", arguments)
    if found["artifact"] is None:
        fetch_weights(context, inputs, candidate)
        found = context.runner("compute").call("build", arguments)
    artifact: JsonObject = found["artifact"]
    return artifact


def fusions_of(prepared: JsonObject | None, candidate: JsonObject) -> JsonObject:
    """Return the fused operators that the blocks of a candidate and of the dense reference should become.

    Args:
        prepared: ``job.prepared``.
        candidate: As in a trial's row; a baseline has all blocks.
    """
    anatomy = Anatomy.model_validate((prepared or {})["anatomy"])
    return {"model": expected_fusions(anatomy, recipe_of(candidate)), "reference": expected_fusions(anatomy)}


def keep_samples(context: StageContext, result: JsonObject) -> JsonObject:
    """Store the raw samples of a measurement and return the result with their digest in place of their path."""
    path = Path(result.pop("samples"))
    return result | {"samples_sha256": context.put_file(path).sha256}


class MeasureStage(TrialStage):
    """Races the candidate against the dense reference."""

    kind = "measure"

    def work(self, context: StageContext) -> JsonObject:
        """Return the measurement and the digest of its raw samples."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            candidate = get_trial(session, context.step.trial_id).candidate
            prepared = get_job(session, context.step.job_id).prepared
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "artifact": artifact_of(context, inputs, candidate),
            "expected_fusions": fusions_of(prepared, candidate),
            "max_seconds": context.settings.measure_seconds,
            "give_up_above": context.step.payload.get("give_up_above"),
        }
        return keep_samples(context, context.runner("device").call("measure", arguments))

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Complete the trial."""
        trial = get_trial(session, step.trial_id)
        if trial.state != "evaluated":
            return
        trial.measurement = output["measurement"]
        session.add(trial)
        name = f"samples.search.{trial.number}"
        session.merge(JobBlob(job_id=trial.job_id, name=name, sha256=output["samples_sha256"]))
        coordinator.after_measure(session, get_job(session, step.job_id), trial)
