"""Holds a candidate's graph, which was written from its recipe, against torch's own export of the same network."""

import shutil
import time
from pathlib import Path

from compressors.recipe import Recipe
from infra.database.models import JsonObject
from profilers.types import Artifact
from workers.operations.bench import bench
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext

COUNTED_BY = "onnxruntime"
"""Whose operators are counted here; other runtimes count their own while they race the graphs."""


def audit(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "recipe"} -> {"ok", "message" | "relative_error", ..., "seconds"}``.

    ``operators`` counts what ONNX Runtime (``runtime``) executes, after its own fusions, for the graph that was written
    (float32), the traced one, and the deployed one with its bit-widths. On its devices, ``fusions`` counts the fused
    operators among them beside those that the surviving blocks should become; where a written graph lacks one, the
    model fails the audit. ``fusion_parity`` says whether nothing is missing in torch's export either. A model of
    another runtime is not judged by what ONNX Runtime makes of it.

    ``written`` and ``traced`` are artifacts for :func:`workers.operations.graph_race.race_graphs`: files in float32, to
    be computed in the recipe's own floating-point arithmetic.
    """
    from compressors.export import audit as exports
    from compressors.export.checks import ExportMismatchError

    inputs, recipe = JobInputs.model_validate(arguments["inputs"]), Recipe.model_validate(arguments["recipe"])
    context.progress({"doing": "comparing a model with torch's own export"})
    work = bench(inputs, context)
    started = time.monotonic()
    folder = inputs.work / "audits" / recipe.digest
    try:
        found = exports.audit(work.candidate_network(recipe), recipe, work.range_feeds(recipe), folder=folder)
    except ExportMismatchError as error:
        shutil.rmtree(folder, ignore_errors=True)
        return {"ok": False, "message": error.message, "seconds": round(time.monotonic() - started, 3)}
    result: JsonObject = {
        "ok": True,
        "relative_error": found.check.relative_error,
        "tolerance": found.check.tolerance,
        "runtime": COUNTED_BY,
        "operators": {"written": found.emitted, "traced": found.traced, "deployed": found.deployed},
        "seconds": round(time.monotonic() - started, 3),
        "written": _artifact(folder / exports.EMITTED, recipe),
        "traced": _artifact(folder / exports.TRACED, recipe),
    }
    if inputs.device.profiler == COUNTED_BY:
        result |= {"ok": found.fully_fused, "fusions": found.fusions, "fusion_parity": found.parity}
    if not result["ok"]:
        result["message"] = f"ONNX Runtime does not fuse every block of the written graph: {found.fusions}."
    return result


def _artifact(path: Path, recipe: Recipe) -> JsonObject:
    return Artifact(path=path, precision=recipe.precision).model_dump(mode="json")
