"""From a candidate to a file that a runtime loads."""

import time

from compressors.recipe import BaselineCandidate
from compressors.recipe import RecipeCandidate
from infra.database.models import JsonObject
from profilers.registry import get_profiler
from profilers.types import Artifact
from workers.operations.artifacts import find_artifact
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
    if isinstance(candidate, BaselineCandidate):
        artifact = _build_baseline(inputs, candidate, context)
    else:
        artifact = _build_recipe(inputs, candidate, context)
    note_artifact(inputs, candidate, artifact)
    return artifact, time.monotonic() - started


def _build_recipe(inputs: JobInputs, candidate: RecipeCandidate, context: OperationContext) -> Artifact:
    from compressors.export.onnx import write_onnx
    from workers.operations.bench import bench

    recipe = candidate.recipe
    path = inputs.artifacts / f"{recipe.digest}.onnx"
    workload = inputs.workload
    static = (workload.batch, workload.sequence_length) if recipe.graph.static_shape else None
    work = bench(inputs, context)
    write_onnx(work.candidate_network(recipe), recipe, path, static=static, feeds=work.range_feeds(recipe))
    return Artifact(path=path, precision=recipe.precision)


def _build_baseline(inputs: JobInputs, candidate: BaselineCandidate, context: OperationContext) -> Artifact:
    from compressors.export.baselines import build_baseline
    from workers.operations.bench import bench

    directory = inputs.artifacts / "baselines"
    directory.mkdir(parents=True, exist_ok=True)
    dense = directory / "fp32.onnx"
    if not dense.exists() and inputs.reference_file.exists():
        dense.hardlink_to(inputs.reference_file)
    work = bench(inputs, context)
    texts = {"int8_static": work.range_texts, "openvino_int8": work.calibration_feeds}.get(candidate.name)
    built = build_baseline(
        candidate.name,
        inputs.model,
        inputs.task,
        directory,
        calibration_feeds=texts() if texts else None,
        saturating=get_profiler(inputs.device.profiler).describe().saturating_int8,
    )
    return Artifact(
        path=built.path,
        format="onnx" if built.format == "onnx" else "openvino_ir",
        precision="bf16" if candidate.name == "openvino_bf16" else "f32",
    )
