"""Final numbers of a finalist: examples, processes and minutes that the search has not seen."""

from compressors.description import Anatomy
from infra.database.models import JsonObject
from profilers.fresh import measure_in_fresh_processes
from profilers.quality.evaluate import evaluate as judge
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import Effort
from workers.operations.data import JobData
from workers.operations.data import load_dense_outputs
from workers.operations.data import load_timing_feeds
from workers.operations.inputs import JobInputs
from workers.operations.measure import samples_path
from workers.runner.operation import OperationContext

PROCESSES = 3
LEAST_SECONDS = 3.0
"""Time that a measuring process needs to be of any use."""
MEASURING_SHARE = 0.1
"""Part of the step's time for each process: noise may make it five, and quality and their start take time, too."""


def confirm(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "anatomy", "artifact", "max_seconds", "process_seconds"} -> {"holdout", "measurement", "samples"}``.

    Quality is taken at the workload's shape, padded as it was when latency was measured: dynamic int8 depends on it.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    artifact = Artifact.model_validate(arguments["artifact"])
    context.progress({"doing": "held-out quality"})
    data = context.state.setdefault("data", None) or JobData.load(inputs, Anatomy.model_validate(arguments["anatomy"]))
    context.state["data"] = data
    holdout = _holdout(inputs, artifact, data)
    context.progress({"doing": "measuring in fresh processes"})
    result = measure_in_fresh_processes(
        inputs.device,
        inputs.workload,
        Artifact(path=inputs.reference_file),
        {"candidate": artifact},
        _effort(arguments["max_seconds"], arguments["process_seconds"]),
        inputs.seed,
        processes=PROCESSES,
        feeds=load_timing_feeds(inputs),
    )["candidate"]
    path = samples_path(inputs, artifact)
    path.write_bytes(result.samples.to_npz())
    return {
        "holdout": holdout,
        "measurement": result.measurement.model_dump(mode="json"),
        "samples": str(path),
    }


def _effort(max_seconds: float | None, process_seconds: float) -> Effort:
    """Return what fits into the step's share of the job's time."""
    share = process_seconds if max_seconds is None else MEASURING_SHARE * max_seconds
    each = min(process_seconds, max(LEAST_SECONDS, share))
    return Effort(half_width=0.01, seconds=each, retreats=1)


def _holdout(inputs: JobInputs, artifact: Artifact, data: JobData) -> JsonObject:
    profiler = get_profiler(inputs.device.profiler)
    with profiler.open(inputs.device, inputs.evaluation_workload, pinned=False) as session:
        quality, _ = judge(
            session.load(artifact),
            data.texts["holdout"],
            load_dense_outputs(inputs)["holdout"],
            data.labels["holdout"],
            inputs.task,
            inputs.workload,
            split="holdout",
            padded=True,
            seed=inputs.seed,
        )
    return quality.model_dump(mode="json")
