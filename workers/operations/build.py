"""From a candidate to a file that a runtime loads."""

import time

from compressors.recipe import BaselineCandidate
from compressors.recipe import RecipeCandidate
from infra.database.models import JsonObject
from infra.disk import is_disk_full
from profilers.registry import get_profiler
from profilers.types import Artifact
from workers.operations.artifacts import find_artifact
from workers.operations.artifacts import make_room
from workers.operations.artifacts import note_artifact
from workers.operations.artifacts import parse_candidate
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext


def find(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "candidate"} -> {"artifact": ... | None}``: look, but do not build. Needs no torch."""
    inputs = JobInputs.model_validate(arguments["inputs"])
    artifact = find_artifact(inputs, parse_candidate(arguments["candidate"]))
    return {"artifact": artifact.model_dump(mode="json") if artifact else None}


def build(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "candidate"} -> {"artifact", "seconds"}``: build unless it is there."""
    inputs = JobInputs.model_validate(arguments["inputs"])
    artifact, seconds = build_artifact(inputs, parse_candidate(arguments["candidate"]), context)
    return {"artifact": artifact.model_dump(mode="json"), "seconds": seconds}


def build_artifact(
    inputs: JobInputs, candidate: RecipeCandidate | BaselineCandidate, context: OperationContext
) -> tuple[Artifact, float]:
    """Return the candidate's artifact and the seconds that building took; 0 if it was there."""
    existing = find_artifact(inputs, candidate)
    if existing is not None:
        return existing, 0.0
    started = time.monotonic()
    inputs.artifacts.mkdir(parents=True, exist_ok=True)
    make_room(inputs)
    try:
        if isinstance(candidate, BaselineCandidate):
            artifact = _build_baseline(inputs, candidate, context)
        else:
            artifact = _build_recipe(inputs, candidate, context)
    except OSError as error:
        if is_disk_full(error):  # the step is tried again
            make_room(inputs, disk_full=True)
        raise
    note_artifact(inputs, candidate, artifact)
    return artifact, time.monotonic() - started


def _build_recipe(inputs: JobInputs, candidate: RecipeCandidate, context: OperationContext) -> Artifact:
    from workers.operations.bench import bench
    from workers.operations.forms import write_network

    recipe, work = candidate.recipe, bench(inputs, context)
    path, workload = inputs.artifacts / recipe.digest, inputs.workload
    static = (workload.batch, workload.sequence_length) if recipe.graph.static_shape else None
    network, ranges = work.candidate_network(recipe), work.range_feeds(recipe)
    return write_network(network, recipe, path, inputs.form, static=static, feeds=ranges)


def _build_baseline(inputs: JobInputs, candidate: BaselineCandidate, context: OperationContext) -> Artifact:
    from compressors.export.baselines import build_baseline
    from compressors.export.torch_baselines import build_torch_baseline
    from workers.operations.bench import bench

    directory = inputs.artifacts / "baselines"
    directory.mkdir(parents=True, exist_ok=True)
    dense = directory / f"fp32{inputs.reference_file.suffix}"
    if not dense.exists() and inputs.reference_file.exists():
        dense.hardlink_to(inputs.reference_file)
    if inputs.form == "torch":
        known = candidate.name == "fp32" and dense.exists()
        path = dense if known else build_torch_baseline(candidate.name, inputs.model, inputs.task, directory)
        return Artifact(path=path, format="torch")
    work = bench(inputs, context)
    capabilities = get_profiler(inputs.device.profiler).describe()
    texts = {"int8_static": work.range_texts, "openvino_int8": work.calibration_feeds}.get(candidate.name)
    built = build_baseline(
        candidate.name,
        inputs.model,
        inputs.task,
        directory,
        calibration_feeds=texts() if texts else None,
        saturating=capabilities.saturating_int8,
        bf16="bf16" in capabilities.precisions,
    )
    return Artifact(path=built.path, format=built.format, precision=built.precision)
