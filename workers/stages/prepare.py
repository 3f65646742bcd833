"""Everything that is computed once for a job: calibration, outputs of the dense model, the reference graph."""

from sqlmodel import Session

from infra.database.models import Job
from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.events import append_event
from search.lifecycle import ENDED
from search.prepared import Prepared
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.graphs import start_graphs
from workers.stages.inputs import get_job
from workers.stages.inputs import job_inputs
from workers.stages.inputs import prepared_files
from workers.stages.sharing import job_content
from workers.stages.sharing import share
from workers.stages.sharing import tell_shared


class PrepareStage(JobStage):
    """Calibrates, unless another job has done so, and keeps the results as blobs for every host and later jobs."""

    kind = "prepare"

    def work(self, context: StageContext) -> JsonObject:
        """Return facts about the dense model and the digests of the blobs."""
        graph_seconds = context.settings.graph_seconds
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            key = job_content(session, job).key(self.kind, **_settings(job))
        known = context.shared(key)
        if known is not None:
            found = known.found | {"prepare_seconds": {}}
            return {"found": found, "blobs": known.blobs, "shared": True, "graph_seconds": graph_seconds}
        inputs = job_inputs(context)
        found = context.runner("compute").call("prepare", inputs.model_dump(mode="json"))
        blobs = {name: context.put_file(path).sha256 for name, path in prepared_files(inputs).items()}
        return {"found": found, "blobs": blobs, "shared": False, "graph_seconds": graph_seconds}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep what was found and go on to the graphs."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        if output["shared"]:
            tell_shared(session, job, self.kind, "Calibration")
        else:
            share(session, job, self.kind, output["found"], output["blobs"], **_settings(job))
        notice = output["found"].get("label_notice")
        if notice is not None:
            append_event(session, job.id, "notice", {"step": self.kind, "message": notice})
        for name, sha256 in output["blobs"].items():
            session.merge(JobBlob(job_id=job.id, name=name, sha256=sha256))
        job.prepared = (job.prepared or {}) | output["found"]
        session.add(job)
        start_graphs(session, job, output["graph_seconds"])


def _settings(job: Job) -> JsonObject:
    """What the shared result depends on beside the content: the form of the dense reference that lies in it."""
    form = Prepared.load(job.prepared).capabilities.form
    return {} if form == "onnx" else {"form": form}
