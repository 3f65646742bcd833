"""What the guided strategy needs to know about the device: the latency table."""

import shutil

from sqlmodel import Session
from sqlmodel import select

from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import LatencyTable
from infra.database.models import Step
from infra.events import append_event
from search.lifecycle import ENDED
from search.lifecycle import set_stage
from search.options import BranchTable
from search.table_notes import describe_steps
from workers.operations.inputs import JobInputs
from workers.stage import StageContext
from workers.stages.base import JobStage
from workers.stages.device_results import affordable_seconds
from workers.stages.device_results import keep_longest
from workers.stages.device_results import measured_key
from workers.stages.device_results import worth_repeating
from workers.stages.explore import start_guided
from workers.stages.inputs import get_job
from workers.stages.inputs import prepared_inputs

VERSION = 6
"""Counts up when tables are measured in another way, so that old ones are not used any more."""
BUDGET_SHARE = 0.12
"""Part of the job's time that timing building blocks may take, once for each kind of model, device and workload."""
MOST_SECONDS = 45.0
LEAST_SECONDS = 15.0
"""Below this the intervals are too wide to steer by."""
PRECISE = 0.03
"""Half-width of the widest interval, relative, below which more time would not be used."""


class TableStage(JobStage):
    """Times the building blocks of the model on the device, unless another job has done so well enough."""

    kind = "table"

    def work(self, context: StageContext) -> JsonObject:
        """Return the table, measured now or before."""
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            prepared, known = job.prepared or {}, _known(session, job)
            seconds = max(LEAST_SECONDS, affordable_seconds(job, BUDGET_SHARE, MOST_SECONDS))
        if known is not None and _good_enough(BranchTable.model_validate(known.table), seconds):
            return {"latency_table": known.table, "table_seconds": 0.0}
        inputs = prepared_inputs(context)
        try:
            return _measure(context, inputs, prepared, seconds)
        finally:
            shutil.rmtree(inputs.blocks, ignore_errors=True)

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep the table for this job and for others; start the search if the options are there as well."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        table = output["latency_table"]
        fresh = LatencyTable(device_id=job.device_id, key=table_key(session, job), table=table)
        keep_longest(session, _known(session, job), fresh, "table")
        job.prepared = (job.prepared or {}) | output
        session.add(job)
        steps = describe_steps(BranchTable.model_validate(table))
        if steps:
            append_event(session, job.id, "notice", {"step": self.kind, "message": steps})
        if "options" in job.prepared:
            start_guided(session, job)
        else:
            set_stage(session, job, "options")


def table_key(session: Session, job: Job) -> str:
    """Name everything that block times depend on: device, architecture, workload, graph."""
    return measured_key(session, job, {"version": VERSION, "graph": (job.prepared or {})["graph_defaults"]})


def _measure(context: StageContext, inputs: JobInputs, prepared: JsonObject, seconds: float) -> JsonObject:
    given = inputs.model_dump(mode="json")
    facts = {name: prepared[name] for name in ("anatomy", "capabilities", "graph_defaults")}
    models = context.runner("compute").call("table_blocks", {"inputs": given, **facts})
    arguments = {"inputs": given, "anatomy": prepared["anatomy"], **models, "max_seconds": seconds}
    return context.runner("device").call("table", arguments)


def _good_enough(table: BranchTable, seconds: float) -> bool:
    precise = table.relative_error <= PRECISE and all(entry.step is not None for entry in table.width_steps)
    return precise or not worth_repeating(table.seconds, seconds)


def _known(session: Session, job: Job) -> LatencyTable | None:
    return session.exec(select(LatencyTable).where(LatencyTable.key == table_key(session, job))).one_or_none()
