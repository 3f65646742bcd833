"""Final numbers of the finalists: examples, processes and minutes that the search has not seen."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

from compressors.description import Anatomy
from infra.database.models import JsonObject
from infra.files import write_whole
from profilers.fresh import by_memory
from profilers.fresh import measure_in_fresh_processes
from profilers.fresh import reference_memory
from profilers.fresh import repeat_peak_memory
from profilers.protocol import Feeds
from profilers.quality.evaluate import evaluate as judge
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import Effort
from profilers.types import Measurement
from profilers.types import Objective
from profilers.types import statistic_of
from workers.operations.artifacts import HOLDOUT
from workers.operations.data import JobData
from workers.operations.data import load_dense_outputs
from workers.operations.data import load_timing_feeds
from workers.operations.fusion import judge_fusions
from workers.operations.inputs import JobInputs
from workers.operations.measure import MEMORY_PROCESSES
from workers.operations.measure import reference_artifact
from workers.operations.measure import samples_path
from workers.runner.operation import OperationContext

PROCESSES = 3
LEAST_SECONDS = 5.0
"""Time that a measuring process needs to be of any use."""
STARTING_SECONDS = 3.5
"""Starting a fresh process and loading a model in it; each model's memory is measured in one of its own."""
MEASURING_SHARE = 0.2
"""Part of the remaining time for each process: noise may make it five."""


def confirm(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Take the held-out quality of all finalists, then race them against the reference in fresh processes.

    ``{"inputs", "anatomy", "finalists": {trial_id: artifact}, "expected_fusions": {trial_id: {"model", "reference"}},
    "max_seconds", "process_seconds"}`` -> ``{"results": {trial_id: {"holdout", "measurement", "samples": path}}}``.

    Quality is taken at the workload's shape, padded as it was when latency was measured: dynamic int8 depends on it.
    All finalists share the blocks of the race, so that their ratios can be compared with each other. Where memory is
    the objective, it is taken in fresh processes as well.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    artifacts = {name: Artifact.model_validate(value) for name, value in arguments["finalists"].items()}
    started = time.monotonic()
    data = JobData.load(inputs, Anatomy.model_validate(arguments["anatomy"]))
    holdout: dict[str, JsonObject] = {}
    for number, (name, artifact) in enumerate(artifacts.items(), start=1):
        context.progress({"doing": f"held-out quality, {number} of {len(artifacts)}"})
        holdout[name] = _holdout(inputs, artifact, data)
    left = _left(arguments["max_seconds"], started)
    context.progress({"doing": f"measuring {len(artifacts)} models in fresh processes"})
    feeds = load_timing_feeds(inputs)
    timed = measure_in_fresh_processes(
        inputs.device,
        inputs.workload,
        reference_artifact(inputs),
        artifacts,
        _effort(left, arguments["process_seconds"], len(artifacts), inputs.objective),
        inputs.seed,
        processes=PROCESSES,
        feeds=feeds,
        memory=inputs.objective != "peak_memory",
        seconds=left and left * _timing_share(len(artifacts), inputs.objective),
    )
    measured = {name: found.measurement for name, found in timed.items()}
    if inputs.objective == "peak_memory":
        context.progress({"doing": f"measuring the memory of {len(artifacts)} models in fresh processes"})
        measured = _compare_memory(inputs, artifacts, measured, feeds, _left(arguments["max_seconds"], started))
    results = {}
    for name, found in timed.items():
        path = samples_path(inputs, f"final.{name}")
        path.write_bytes(found.samples.to_npz())
        final, expected = measured[name], arguments["expected_fusions"][name]
        final = judge_fusions(inputs, final, final.fusion, expected, final.reference_fusion)
        measurement = final.model_dump(mode="json")
        results[name] = {"holdout": holdout[name], "measurement": measurement, "samples": str(path)}
    return {"results": results}


def _left(seconds: float | None, started: float) -> float | None:
    """Return what is left of ``seconds`` since ``started``, a moment of the monotonic clock; ``None``: no limit."""
    return seconds and seconds - (time.monotonic() - started)


def _compare_memory(
    inputs: JobInputs,
    artifacts: Mapping[str, Artifact],
    timed: Mapping[str, Measurement],
    feeds: Feeds,
    left: float | None,
) -> dict[str, Measurement]:
    """Compare in as many processes as there is time for in ``left`` seconds, at least two for each model."""
    device, workload = inputs.device, inputs.workload
    processes = MEMORY_PROCESSES
    if left is not None:
        processes = min(MEMORY_PROCESSES, max(2, int(left / STARTING_SECONDS / (len(artifacts) + 2))))
    reference = reference_memory(device, workload, reference_artifact(inputs), processes, feeds=feeds)
    taken = {
        name: repeat_peak_memory(device, workload, artifact, processes, feeds=feeds)
        for name, artifact in artifacts.items()
    }
    return {name: by_memory(timed[name], taken[name], reference) for name in artifacts}


def _timing_share(models: int, objective: Objective) -> float:
    """Return the part of the time that timing may take; where memory is the objective, most processes are for that."""
    if objective != "peak_memory":
        return 1.0
    return PROCESSES / (PROCESSES + MEMORY_PROCESSES * (models + 2))


def _effort(left: float | None, process_seconds: float, models: int, objective: Objective) -> Effort:
    """Return what fits into the time that is left for the job."""
    in_memory = objective == "peak_memory"
    total = min(process_seconds, LEAST_SECONDS) if in_memory else process_seconds  # times are for orientation then
    if left is not None:
        starts = MEMORY_PROCESSES * (models + 2) if in_memory else models
        measuring = left - STARTING_SECONDS * (starts + PROCESSES)
        total = min(total, max(LEAST_SECONDS, MEASURING_SHARE * measuring))
    effort = Effort(half_width=0.01, seconds=total, total_seconds=total, retreats=1)
    return effort.by(statistic_of(objective))


def _holdout(inputs: JobInputs, artifact: Artifact, data: JobData) -> JsonObject:
    """Return the held-out quality; kept in a file, so that a repeated step does not take it again."""
    kept: Path = inputs.artifacts / f"{artifact.path.stem}.{artifact.precision}{HOLDOUT}"
    if kept.exists():
        stored: JsonObject = json.loads(kept.read_text(encoding="utf-8"))
        return stored
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
    found: JsonObject = quality.model_dump(mode="json")
    write_whole(kept, json.dumps(found).encode())
    return found
