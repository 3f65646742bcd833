"""What the guided strategy needs to know about the device: the latency table."""

from sqlmodel import Session
from sqlmodel import select

from compressors.description import Anatomy
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import LatencyTable
from infra.database.models import Step
from infra.digests import json_digest
from search.lifecycle import ENDED
from search.lifecycle import set_stage
from search.requests import JobRequest
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.explore import start_guided
from workers.stages.inputs import get_job
from workers.stages.inputs import prepared_inputs

VERSION = 3
"""Counts up when tables are measured in another way, so that old ones are not used any more."""
BUDGET_SHARE = 0.12
"""Part of the job's time that timing building blocks may take, once for each kind of model, device and workload."""


class TableStage(JobStage):
    """Times the building blocks of the model on the device, unless another job has done so."""

    kind = "table"

    def work(self, context: StageContext) -> JsonObject:
        """Return the table, measured now or before."""
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            prepared, known = job.prepared or {}, _known(session, job)
            budget = JobRequest.model_validate(job.request).search_seconds
        if known is not None:
            return {"latency_table": known.table, "table_seconds": 0.0}
        inputs = prepared_inputs(context).model_dump(mode="json")
        facts = {name: prepared[name] for name in ("anatomy", "capabilities", "graph_defaults")}
        blocks = context.runner("compute").call("table_blocks", {"inputs": inputs, **facts})["blocks"]
        arguments = {
            "inputs": inputs,
            "anatomy": prepared["anatomy"],
            "blocks": blocks,
            "max_seconds": None if budget is None else BUDGET_SHARE * budget,
        }
        return context.runner("device").call("table", arguments)

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep the table for this job and for others; start the search if the options are there as well."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        if _known(session, job) is None:
            session.add(LatencyTable(device_id=job.device_id, key=table_key(job), table=output["latency_table"]))
        job.prepared = (job.prepared or {}) | output
        session.add(job)
        if "options" in job.prepared:
            start_guided(session, job)
        else:
            set_stage(session, job, "options")


def table_key(job: Job) -> str:
    """Name everything that block times depend on: device, architecture, workload, graph."""
    return measured_key(job, {"version": VERSION, "graph": (job.prepared or {})["graph_defaults"]})


def measured_key(job: Job, what: JsonObject) -> str:
    """Name what was measured for any model of the job's architecture on its device, at its workload."""
    prepared = job.prepared or {}
    anatomy = Anatomy.model_validate(prepared["anatomy"]).model_dump(
        include={"model_type", "task", "layers", "hidden_size", "heads", "head_size", "intermediate_size"}, mode="json"
    )
    parts = {
        "device": job.device_id,
        "anatomy": anatomy | {"labels": len(prepared["anatomy"]["labels"])},
        "capabilities": prepared["capabilities"],
        "workload": JobRequest.model_validate(job.request).workload.model_dump(mode="json"),
    }
    return json_digest(parts | what)


def _known(session: Session, job: Job) -> LatencyTable | None:
    return session.exec(select(LatencyTable).where(LatencyTable.key == table_key(job))).one_or_none()
