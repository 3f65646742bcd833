"""Which of the equivalent graphs the device runs fastest: raced once for each kind of model, device and workload."""

import shutil
from collections.abc import Mapping

from sqlmodel import Session
from sqlmodel import select

from compressors.export.graph_choices import FIXED_SHAPE
from compressors.export.graph_choices import alternatives
from compressors.recipe import GraphRecipe
from infra.database.models import BestGraph
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.events import append_event
from infra.steps import create_step
from profilers.types import Estimate
from search import coordinator
from search.graph_choice import GraphChoice
from search.graph_choice import choose_graph
from search.graph_choice import describe
from search.lifecycle import ENDED
from search.lifecycle import device_queue
from search.lifecycle import set_stage
from search.prepared import Prepared
from workers.operations.formats import branch_bits
from workers.operations.inputs import JobInputs
from workers.stage import StageContext
from workers.stages.device_results import affordable_seconds
from workers.stages.device_results import keep_longest
from workers.stages.device_results import measured_key
from workers.stages.device_results import worth_repeating
from workers.stages.inputs import get_job
from workers.stages.inputs import prepared_inputs

VERSION = 2
"""Counts up when graphs are chosen in another way, so that old choices are not used any more."""
BUDGET_SHARE = 0.04
"""Part of the job's time that races of graphs may take."""
LEAST_SECONDS = 5.0
"""With less time the intervals are too wide to choose by; the job uses the graphs that are known to be good."""
FIRST_RACE = 0.65
"""Part of the time for the race of all settings; the rest is for those that seemed to help."""
FORMS = {32: "float_graph", 8: "graph"}
"""Which of the device's graphs is chosen by a race in so many bits."""


class GraphsStage:
    """Races the graph recipes against each other, unless another job has done so; the result is the job's default."""

    kind = "graphs"

    def work(self, context: StageContext) -> JsonObject:
        """Return the choices, or nothing where the job has no time for them."""
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            prepared, known = Prepared.load(job.prepared), _known(session, job)
            limit = context.settings.graph_seconds
            seconds = affordable_seconds(job, BUDGET_SHARE, limit)
        before = {"choices": {} if known is None else known.found["choices"], "seconds": 0.0, "allowed": 0.0}
        if seconds < min(limit, LEAST_SECONDS) or seconds == 0 or _good_enough(known, seconds):
            return before
        inputs = prepared_inputs(context)
        try:
            found = _Races(context, inputs, prepared, seconds).run()
        finally:
            shutil.rmtree(inputs.graphs, ignore_errors=True)
        measured = any(choice["ratios"] for choice in found["choices"].values())
        return found | {"allowed": seconds} if measured or known is None else before

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep the choices for this job and for others, and let the first trials begin."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        if any(choice["ratios"] for choice in output["choices"].values()):
            found = {"choices": output["choices"], "seconds": output["allowed"]}
            fresh = BestGraph(device_id=job.device_id, key=graph_key(session, job), found=found)
            keep_longest(session, _known(session, job), fresh, "found")
        _use(session, job, output["choices"], output["seconds"])
        coordinator.start_trials(session, job)

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Tell the job's watchers and go on with the graphs that are known to be good."""
        append_event(session, step.job_id, "notice", {"step": step.kind, **error.to_dict()})
        job = get_job(session, step.job_id)
        if job.state not in ENDED:
            coordinator.start_trials(session, job)


def start_graphs(session: Session, job: Job, graph_seconds: float) -> None:
    """Have the graphs raced, or go straight to the trials where another job has had that done well enough.

    Args:
        session: An open session.
        job: The job.
        graph_seconds: Seconds that races may take, whatever the budget: the setting of this name.
    """
    if Prepared.load(job.prepared).capabilities.form != "onnx":
        coordinator.start_trials(session, job)
        return
    known = _known(session, job)
    if known is not None and _good_enough(known, affordable_seconds(job, BUDGET_SHARE, graph_seconds)):
        _use(session, job, known.found["choices"], 0.0)
        coordinator.start_trials(session, job)
        return
    set_stage(session, job, "graphs")
    create_step(session, job_id=job.id, kind="graphs", key="graphs", queue=device_queue(session, job))


def graph_key(session: Session, job: Job) -> str:
    """Name everything that the choice depends on: device, architecture, workload, and what it starts from."""
    return measured_key(session, job, {"graphs": VERSION, "start": _start(job)})


def _start(job: Job) -> JsonObject:
    """What the job's graphs were before it chose."""
    prepared = job.prepared or {}
    found: JsonObject = prepared.get("graph_start") or Prepared.load(prepared).graph_defaults.model_dump(mode="json")
    return found


class _Races:
    """The races of one job: one kind of arithmetic after the other shares the time."""

    def __init__(self, context: StageContext, inputs: JobInputs, prepared: Prepared, seconds: float) -> None:
        self._context = context
        self._defaults = prepared.graph_defaults
        self._bits = branch_bits(prepared.capabilities, self._defaults)
        self._inputs = inputs.model_dump(mode="json")
        self._seconds = seconds / len(self._bits)
        self._spent = 0.0

    def run(self) -> JsonObject:
        """Return ``{"choices": {form: choice}, "seconds"}``."""
        choices = {}
        for bits in self._bits:
            start = getattr(self._defaults, FORMS[bits]) or self._defaults.graph
            choices[FORMS[bits]] = self._choose(bits, start).model_dump(mode="json")
        return {"choices": choices, "seconds": round(self._spent, 3)}

    def _choose(self, bits: int, start: GraphRecipe) -> GraphChoice:
        others = alternatives(start, rounded=bits == 8)

        def race(reference: GraphRecipe, graphs: Mapping[str, GraphRecipe]) -> dict[str, Estimate]:
            share = FIRST_RACE if FIXED_SHAPE in graphs else 1.0 - FIRST_RACE
            return self._race(bits, reference, graphs, share * self._seconds)

        return choose_graph(start, others, race)

    def _race(
        self, bits: int, reference: GraphRecipe, graphs: Mapping[str, GraphRecipe], seconds: float
    ) -> dict[str, Estimate]:
        written = {name: graph.model_dump(mode="json") for name, graph in {"": reference, **graphs}.items()}
        arguments = {
            "inputs": self._inputs,
            "graph_defaults": self._defaults.model_dump(mode="json"),
            "bits": bits,
            "graphs": written,
        }
        artifacts = self._context.runner("compute").call("graph_variants", arguments)["artifacts"]
        arguments = {
            "inputs": self._inputs,
            "reference": artifacts.pop(""),
            "artifacts": artifacts,
            "max_seconds": seconds,
        }
        found = self._context.runner("device").call("race_graphs", arguments)
        self._spent += found["seconds"]
        return {name: Estimate.model_validate(ratio) for name, ratio in found["ratios"].items()}


def _use(session: Session, job: Job, choices: JsonObject, seconds: float) -> None:
    """Make the choices the job's defaults and tell its watchers."""
    start, chosen = _start(job), {form: choice["graph"] for form, choice in choices.items()}
    found = {"graph_start": start, "graph_defaults": start | chosen, "graph_choices": choices, "graph_seconds": seconds}
    job.prepared = (job.prepared or {}) | found
    session.add(job)
    if choices:
        message = describe({form: GraphChoice.model_validate(choice) for form, choice in choices.items()})
        append_event(session, job.id, "notice", {"step": "graphs", "message": message, "seconds": seconds})


def _good_enough(known: BestGraph | None, seconds: float) -> bool:
    return known is not None and not worth_repeating(known.found["seconds"], seconds)


def _known(session: Session, job: Job) -> BestGraph | None:
    return session.exec(select(BestGraph).where(BestGraph.key == graph_key(session, job))).one_or_none()
