"""Builds a candidate and looks at its quality: the first half of a trial."""

from sqlmodel import Session

from infra.database.models import JsonObject
from infra.database.models import Step
from search import coordinator
from workers.stage import StageContext
from workers.stages.base import TrialStage
from workers.stages.inputs import fetch_weights
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial
from workers.stages.inputs import prepared_inputs


class EvaluateStage(TrialStage):
    """Builds the deployed artifact and evaluates it on the search split."""

    kind = "evaluate"

    def work(self, context: StageContext) -> JsonObject:
        """Return quality, stored size and facts of the candidate."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            trial = get_trial(session, context.step.trial_id)
            candidate = trial.candidate
            allowed = coordinator.allowed_at_first(session, get_job(session, context.step.job_id), trial)
        fetch_weights(context, inputs, candidate)
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "candidate": candidate,
            "allowed_at_first": allowed.model_dump(mode="json") if allowed else None,
        }
        return context.runner("compute").call("evaluate", arguments)

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Write the trial's row; the coordinator decides whether it is worth a measurement."""
        trial = get_trial(session, step.trial_id)
        if trial.state != "queued":
            return
        trial.quality = output["quality"]
        trial.size_bytes = output["size_bytes"]
        trial.facts = trial.facts | output["facts"]
        session.add(trial)
        coordinator.after_evaluate(session, get_job(session, step.job_id), trial)
