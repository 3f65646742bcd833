"""Everything that is computed once for a job: calibration, outputs of the dense model, the reference graph."""

from sqlmodel import Session

from infra.database.models import Job
from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.events import append_event
from search.lifecycle import ENDED
from search.prepared import Prepared
from search.requests import JobRequest
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.graphs import start_graphs
from workers.stages.inputs import fetch_blobs
from workers.stages.inputs import get_job
from workers.stages.inputs import job_inputs
from workers.stages.inputs import prepared_files
from workers.stages.sharing import job_content
from workers.stages.sharing import share
from workers.stages.sharing import tell_shared

CALIBRATION = ("calibration", "dense_outputs")
"""Files that depend on the content alone; the others on the workload's batch, or the form of the reference, as well."""


class PrepareStage(JobStage):
    """Calibrates, unless another job has done so, and keeps the results as blobs for every host and later jobs."""

    kind = "prepare"

    def work(self, context: StageContext) -> JsonObject:
        """Return facts about the dense model and the digests of the blobs."""
        graph_seconds = context.settings.graph_seconds
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            content, settings = job_content(session, job), _settings(job)
        known = context.shared(content.key(self.kind, **settings))
        if known is not None:
            found = known.found | {"prepare_seconds": {}}
            return {"found": found, "blobs": known.blobs, "shared": "all", "graph_seconds": graph_seconds}
        inputs = job_inputs(context)
        calibrated = context.shared(content.key(CALIBRATION[0]))
        if calibrated is not None:
            fetch_blobs(context, inputs, calibrated.blobs)
        found = context.runner("compute").call("prepare", inputs.model_dump(mode="json"))
        blobs = {name: context.put_file(path).sha256 for name, path in prepared_files(inputs).items()}
        shared = "nothing" if calibrated is None else "calibration"
        return {"found": found, "blobs": blobs, "shared": shared, "graph_seconds": graph_seconds}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep what was found and go on to the graphs."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        blobs = output["blobs"]
        if output["shared"] != "nothing":
            tell_shared(session, job, self.kind, "Calibration")
        if output["shared"] != "all":
            share(session, job, self.kind, output["found"], blobs, **_settings(job))
            share(session, job, CALIBRATION[0], {}, {name: blobs[name] for name in CALIBRATION})
        for notice in (output["found"].get("label_notice"), output["found"].get("calibration_notice")):
            if notice is not None:
                append_event(session, job.id, "notice", {"step": self.kind, "message": notice})
        for name, sha256 in blobs.items():
            session.merge(JobBlob(job_id=job.id, name=name, sha256=sha256))
        job.prepared = (job.prepared or {}) | output["found"]
        session.add(job)
        start_graphs(session, job, output["graph_seconds"])


def _settings(job: Job) -> JsonObject:
    """What the shared result depends on beside the content: the dense reference and what it is timed on lie in it."""
    batch = JobRequest.model_validate(job.request).workload.batch
    return {"form": Prepared.load(job.prepared).capabilities.form, "batch": batch}
