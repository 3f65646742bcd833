"""One candidate against the dense reference: raced for its latency, or compared by the memory that it takes."""

from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from infra.database.models import JsonObject
from profilers.fresh import by_memory
from profilers.fresh import reference_memory
from profilers.fresh import repeat_peak_memory
from profilers.fresh.compared_memory import ReferenceMemory
from profilers.measure import executed_operators
from profilers.measure import measure as race
from profilers.protocol import Handle
from profilers.protocol import Session
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import Effort
from profilers.types import Measurement
from profilers.types import Objective
from profilers.types import statistic_of
from workers.operations.data import load_timing_feeds
from workers.operations.fusion import count_fusions
from workers.operations.fusion import tells
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext

MEMORY_PROCESSES = 3
"""Fresh processes that the memory of a model is taken in."""
ORIENTATION = Effort(half_width=0.05, seconds=5.0, min_blocks=8, control_every=2, retreats=0)
"""How precisely times are taken where memory decides."""


@dataclass
class Stand:
    """The open device with the dense reference loaded; stays as long as the runner does.

    Attributes:
        session: The device.
        reference: The dense model.
        operators: Operators that the runtime executes for the dense model, once a candidate was compared by them; empty
            where they are not known.
        memory: The dense model's memory, once a candidate was compared by it.
    """

    session: Session
    reference: Handle
    operators: dict[str, int] = field(default_factory=dict)
    memory: ReferenceMemory | None = None


def stand(inputs: JobInputs, context: OperationContext) -> Stand:
    """Return the runner's stand; the device is opened at the first call."""
    found = context.state.get("stand")
    if not isinstance(found, Stand):
        feeds = load_timing_feeds(inputs)
        session = get_profiler(inputs.device.profiler).open(inputs.device, inputs.workload, feeds=feeds)
        found = Stand(session, session.load(reference_artifact(inputs)))
        context.state["stand"] = found
    return found


def measure(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Race a candidate against the reference, and count what the runtime has fused in both.

    ``{"inputs", "artifact", "expected_fusions": {"model", "reference"}, "give_up_above", "max_seconds"} ->
    {"measurement", "samples": path}``; see :func:`workers.operations.fusion.count_fusions`.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    artifact = Artifact.model_validate(arguments["artifact"])
    open_stand = stand(inputs, context)
    ceiling: float | None = arguments["give_up_above"]
    handle = open_stand.session.load(artifact)
    try:
        effort = _effort(inputs.objective, ceiling, arguments["max_seconds"])
        result = race(open_stand.session, open_stand.reference, {"candidate": handle}, effort, inputs.seed)["candidate"]
        if tells(inputs) and not open_stand.operators:  # for want of room it may have failed before
            open_stand.operators = executed_operators(open_stand.reference)
        measurement = count_fusions(
            inputs, result.measurement, handle, arguments["expected_fusions"], open_stand.operators
        )
    finally:
        open_stand.session.unload(handle)
    if inputs.objective == "peak_memory":
        context.progress({"doing": "measuring memory in fresh processes"})
        measurement = _compare_memory(inputs, artifact, measurement, open_stand, ceiling)
    path = samples_path(inputs, f"{artifact.path.stem}.{artifact.precision}")
    path.write_bytes(result.samples.to_npz())
    return {"measurement": measurement.model_dump(mode="json"), "samples": str(path)}


def _effort(objective: Objective, ceiling: float | None, seconds: float) -> Effort:
    """Return how precisely the times are taken; a ceiling on memory says nothing about them."""
    if objective == "peak_memory":
        return ORIENTATION.model_copy(update={"seconds": min(ORIENTATION.seconds, seconds)})
    return Effort.search(ceiling).by(statistic_of(objective)).model_copy(update={"seconds": seconds})


def _compare_memory(
    inputs: JobInputs, artifact: Artifact, timed: Measurement, open_stand: Stand, ceiling: float | None
) -> Measurement:
    feeds = load_timing_feeds(inputs)
    if open_stand.memory is None:
        reference = reference_artifact(inputs)
        open_stand.memory = reference_memory(inputs.device, inputs.workload, reference, MEMORY_PROCESSES, feeds=feeds)
    taken = repeat_peak_memory(inputs.device, inputs.workload, artifact, MEMORY_PROCESSES, feeds=feeds)
    return by_memory(timed, taken, open_stand.memory, ceiling)


def reference_artifact(inputs: JobInputs) -> Artifact:
    """Return the dense model that everything is a ratio to."""
    return Artifact(path=inputs.reference_file, format=inputs.form)


def samples_path(inputs: JobInputs, name: str) -> Path:
    """Return where raw samples are written.

    Args:
        inputs: The job.
        name: Tells the measurement from all others of the step; two candidates may share a file.
    """
    directory = inputs.work / "samples"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{name}.npz"
