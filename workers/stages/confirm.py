"""Final numbers of a finalist: held-out quality at the profiled shape, and latency again in fresh processes."""

from sqlmodel import Session

from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Step
from search import coordinator
from workers.stage import StageContext
from workers.stages.base import TrialStage
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial
from workers.stages.inputs import prepared_inputs
from workers.stages.measure import artifact_of
from workers.stages.measure import keep_samples


class ConfirmStage(TrialStage):
    """Uses nothing that the search has seen: other examples, other processes, other minutes."""

    kind = "confirm"

    def work(self, context: StageContext) -> JsonObject:
        """Return held-out quality, the final measurement and the digest of its raw samples."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            candidate = get_trial(session, context.step.trial_id).candidate
            prepared = get_job(session, context.step.job_id).prepared or {}
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "anatomy": prepared["anatomy"],
            "artifact": artifact_of(context, inputs, candidate),
            "max_seconds": context.step.payload.get("max_seconds"),
            "process_seconds": context.settings.confirm_seconds,
        }
        return keep_samples(context, context.runner("device").call("confirm", arguments))

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Write the final numbers and ask the coordinator whether these were the last."""
        trial = get_trial(session, step.trial_id)
        trial.holdout = output["holdout"]
        trial.final_measurement = output["measurement"]
        session.add(trial)
        name = f"samples.final.{trial.number}"
        session.merge(JobBlob(job_id=trial.job_id, name=name, sha256=output["samples_sha256"]))
        coordinator.after_confirm(session, get_job(session, step.job_id), trial)
