"""Whether the files of the finalists compute what their networks compute."""

from sqlmodel import Session

from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.events import append_event
from search import coordinator
from workers.stage import StageContext
from workers.stages.inputs import fetch_weights
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial
from workers.stages.inputs import prepared_inputs


class AuditStage:
    """Traces one finalist with torch and compares; the result is a fact of the trial."""

    kind = "audit"

    def work(self, context: StageContext) -> JsonObject:
        """Return what the comparison found."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            candidate = get_trial(session, context.step.trial_id).candidate
        fetch_weights(context, inputs, candidate)
        arguments = {"inputs": inputs.model_dump(mode="json"), "recipe": candidate["recipe"]}
        return {"audit": context.runner("compute").call("audit", arguments)}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Write it down; a model that failed is in no front any more."""
        trial = get_trial(session, step.trial_id)
        trial.facts = trial.facts | output
        session.add(trial)
        coordinator.after_audit(session, get_job(session, step.job_id))

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Tell the job's watchers; a comparison that could not be made says nothing about the model."""
        append_event(session, step.job_id, "notice", {"step": step.kind, **error.to_dict()})
        coordinator.after_audit(session, get_job(session, step.job_id))
