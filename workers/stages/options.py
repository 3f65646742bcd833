"""What the guided strategy needs to know about the model: the option database."""

from sqlmodel import Session

from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from profilers.types import Capabilities
from search import coordinator
from search.lifecycle import ENDED
from search.requests import JobRequest
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.explore import start_guided
from workers.stages.inputs import get_job
from workers.stages.inputs import prepared_inputs
from workers.stages.sharing import job_content
from workers.stages.sharing import share
from workers.stages.sharing import tell_shared


class OptionsStage(JobStage):
    """Computes errors and divergences of all options of all branches, unless another job has done so."""

    kind = "options"

    def work(self, context: StageContext) -> JsonObject:
        """Return the option database, computed now or before."""
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            offered = options_offered(job)
            key = job_content(session, job).key(self.kind, **offered)
        known = context.shared(key)
        if known is not None:
            return known.found | {"options_seconds": 0.0, "shared": True}
        arguments = {"inputs": prepared_inputs(context).model_dump(mode="json"), "offered": offered}
        return context.runner("compute").call("options", arguments) | {"shared": False}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep the database for this job and for others; start the search if the latency table is there as well."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        found = {name: value for name, value in output.items() if name != "shared"}
        if output["shared"]:
            tell_shared(session, job, self.kind, "Option database")
        else:
            share(session, job, self.kind, found, **options_offered(job))
        job.prepared = (job.prepared or {}) | found
        session.add(job)
        request = JobRequest.model_validate(job.request)
        if "latency_table" in job.prepared or not coordinator.needs_table(request):
            start_guided(session, job)


def options_offered(job: Job) -> JsonObject:
    """Return which options the job's database has beside those of every database: all that it takes from the device."""
    capabilities = Capabilities.model_validate((job.prepared or {})["capabilities"])
    kinds = JobRequest.model_validate(job.request).space.kinds
    return {"zeros": "sparsity" in kinds and capabilities.sparse_speedup}
