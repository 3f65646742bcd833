"""First look: does the model load, does the data fit it? Bad input ends here, within seconds."""

from sqlmodel import Session

from infra.database.clock import database_now
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.events import append_event
from infra.steps import create_step
from search.lifecycle import ENDED
from search.lifecycle import set_stage
from search.requests import JobRequest
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.inputs import get_job
from workers.stages.inputs import job_inputs


class InspectStage(JobStage):
    """Loads model and data in a runner and describes them."""

    kind = "inspect"

    def work(self, context: StageContext) -> JsonObject:
        """Return anatomy, device capabilities, splits and whether there are labels."""
        inputs = job_inputs(context)
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            training = JobRequest.model_validate(job.request).training
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "training": None if training is None else training.model_dump(mode="json"),
        }
        return context.runner("compute").call("inspect", arguments)

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Start the job's clock, which counts this step as well, and go on to ``prepare``."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        job.prepared = output
        job.state = "running"
        job.started_at = job.started_at or step.started_at or database_now(session)
        append_event(session, job.id, "state", {"state": "running"})
        set_stage(session, job, "prepare")
        create_step(session, job_id=job.id, kind="prepare", key="prepare", queue="compute")
