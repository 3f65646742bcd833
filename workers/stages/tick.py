"""The coordinator's turn: propose while no transaction is open, commit in the step's transaction."""

from sqlmodel import Session

from infra.database.models import JsonObject
from infra.database.models import Step
from search import coordinator
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.inputs import get_job


class TickStage(JobStage):
    """Lets the strategy think, then creates trials or moves the job on."""

    kind = "tick"

    def work(self, context: StageContext) -> JsonObject:
        """Return what should be tried next."""
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            plan = coordinator.propose(session, job, in_flight=context.settings.trials_in_flight)
        return {"plan": plan.model_dump(mode="json"), "in_flight": context.settings.trials_in_flight}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Create the trials."""
        plan = coordinator.Plan.model_validate(output["plan"])
        coordinator.commit(session, get_job(session, step.job_id), plan, in_flight=output["in_flight"])
