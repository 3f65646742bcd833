"""What the guided strategy needs to know about the model: the option database."""

from sqlmodel import Session

from infra.database.models import JsonObject
from infra.database.models import Step
from search import coordinator
from search.lifecycle import ENDED
from search.requests import JobRequest
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.explore import start_guided
from workers.stages.inputs import get_job
from workers.stages.inputs import prepared_inputs


class OptionsStage(JobStage):
    """Computes errors and divergences of all options of all branches."""

    kind = "options"

    def work(self, context: StageContext) -> JsonObject:
        """Return the option database."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            prepared = job.prepared or {}
            kinds = JobRequest.model_validate(job.request).space.kinds
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "capabilities": prepared["capabilities"],
            "graph_defaults": prepared["graph_defaults"],
            "kinds": list(kinds),
        }
        return context.runner("compute").call("options", arguments)

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep the database; start the search if the latency table is there as well."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        job.prepared = (job.prepared or {}) | output
        session.add(job)
        request = JobRequest.model_validate(job.request)
        if "latency_table" in job.prepared or not coordinator.needs_table(request):
            start_guided(session, job)
