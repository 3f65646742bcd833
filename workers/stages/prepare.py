"""Everything that is computed once for a job: calibration, outputs of the dense model, the reference graph."""

from sqlmodel import Session

from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Step
from search.lifecycle import ENDED
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.graphs import start_graphs
from workers.stages.inputs import get_job
from workers.stages.inputs import job_inputs
from workers.stages.inputs import prepared_files


class PrepareStage(JobStage):
    """Calibrates, and keeps the results as blobs so that every host can go on from them."""

    kind = "prepare"

    def work(self, context: StageContext) -> JsonObject:
        """Return facts about the dense model and the digests of the blobs."""
        inputs = job_inputs(context)
        found = context.runner("compute").call("prepare", inputs.model_dump(mode="json"))
        blobs = {name: context.put_file(path).sha256 for name, path in prepared_files(inputs).items()}
        return {"found": found, "blobs": blobs}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep what was found and go on to the graphs."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        for name, sha256 in output["blobs"].items():
            session.merge(JobBlob(job_id=job.id, name=name, sha256=sha256))
        job.prepared = (job.prepared or {}) | output["found"]
        session.add(job)
        start_graphs(session, job)
