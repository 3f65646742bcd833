"""First look: does the model load, does the data fit it? Bad input ends here, within seconds."""

import time
from datetime import timedelta

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

WORKED = "inspect_seconds"


class InspectStage(JobStage):
    """Loads model and data in a runner and describes them."""

    kind = "inspect"

    def work(self, context: StageContext) -> JsonObject:
        """Return anatomy, device capabilities, splits and whether there are labels, and the seconds that it took."""
        inputs = job_inputs(context)
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            training = JobRequest.model_validate(job.request).training
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "training": None if training is None else training.model_dump(mode="json"),
        }
        started = time.monotonic()
        found = context.runner("compute").call("inspect", arguments)
        return found | {WORKED: time.monotonic() - started}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Start the job's clock, which counts the work of this step but no waiting for it, and go on to ``prepare``."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        worked = timedelta(seconds=output.pop(WORKED, 0.0))
        job.prepared = output
        job.state = "running"
        job.started_at = job.started_at or database_now(session) - worked
        append_event(session, job.id, "state", {"state": "running"})
        set_stage(session, job, "prepare")
        create_step(session, job_id=job.id, kind="prepare", key="prepare", queue="compute")
