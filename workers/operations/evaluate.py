"""Build a candidate and look at its quality on the search split."""

import time

from compressors.recipe import RecipeCandidate
from infra.database.models import JsonObject
from profilers.quality.evaluate import evaluate as judge
from profilers.registry import get_profiler
from workers.operations.artifacts import parse_candidate
from workers.operations.artifacts import size_bytes
from workers.operations.bench import bench
from workers.operations.build import build_artifact
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext


def evaluate(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "candidate"} -> {"quality", "size_bytes", "facts"}``.

    The deployed artifact is evaluated on the device's own runtime, one example at a time at its own length; the
    finalists are evaluated again, padded to the workload's shape.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    candidate = parse_candidate(arguments["candidate"])
    work = bench(inputs, context)
    artifact, build_seconds = build_artifact(inputs, candidate, context)
    started = time.monotonic()
    profiler = get_profiler(inputs.device.profiler)
    with profiler.open(inputs.device, inputs.evaluation_workload, pinned=False) as session:
        quality, _ = judge(
            session.load(artifact, static=False),
            work.data.texts["search"],
            work.dense_outputs["search"],
            work.data.labels["search"],
            inputs.task,
            inputs.workload,
            split="search",
            padded=False,
            seed=inputs.seed,
        )
    facts: JsonObject = {"build_seconds": build_seconds, "evaluate_seconds": time.monotonic() - started}
    if isinstance(candidate, RecipeCandidate):
        facts["parameters"] = work.parameters(candidate.recipe)
    return {"quality": quality.model_dump(mode="json"), "size_bytes": size_bytes(artifact), "facts": facts}
