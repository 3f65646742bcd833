"""Final numbers of the finalists: held-out quality at the profiled shape, and latency again in fresh processes."""

from sqlmodel import Session

from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from search import coordinator
from workers.stage import StageContext
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial
from workers.stages.inputs import prepared_inputs
from workers.stages.measure import artifact_of
from workers.stages.measure import fusions_of
from workers.stages.measure import keep_samples


class ConfirmStage:
    """Uses nothing that the search has seen: other examples, other processes, other minutes."""

    kind = "confirm"

    def work(self, context: StageContext) -> JsonObject:
        """Return held-out quality, final measurement and the digest of the raw samples for each finalist."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            prepared = get_job(session, context.step.job_id).prepared or {}
            candidates = {name: get_trial(session, name).candidate for name in context.step.payload["trials"]}
        finalists = {name: artifact_of(context, inputs, candidate) for name, candidate in candidates.items()}
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "anatomy": prepared["anatomy"],
            "finalists": finalists,
            "expected_fusions": {name: fusions_of(prepared, candidate) for name, candidate in candidates.items()},
            "max_seconds": context.step.payload.get("max_seconds"),
            "process_seconds": context.settings.confirm_seconds,
        }
        found = context.runner("device").call("confirm", arguments)["results"]
        return {"results": {name: keep_samples(context, result) for name, result in found.items()}}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Write the final numbers and let the coordinator end the job."""
        job = get_job(session, step.job_id)
        for trial_id, result in output["results"].items():
            trial = get_trial(session, trial_id)
            trial.holdout = result["holdout"]
            trial.final_measurement = result["measurement"]
            session.add(trial)
            name = f"samples.final.{trial.number}"
            session.merge(JobBlob(job_id=trial.job_id, name=name, sha256=result["samples_sha256"]))
            coordinator.after_confirm(session, job, trial)

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Note on every finalist that it has no final numbers; the job ends with those of the search."""
        job = get_job(session, step.job_id)
        for trial_id in step.payload["trials"]:
            coordinator.trial_failed(session, job, get_trial(session, trial_id), error)
