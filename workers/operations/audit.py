"""Holds a candidate's graph, which was written from its recipe, against torch's own export of the same network."""

import time

from compressors.recipe import Recipe
from infra.database.models import JsonObject
from workers.operations.bench import bench
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext


def audit(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "recipe"} -> {"ok", "message" | "relative_error", "tolerance", "operators", "seconds"}``.

    ``operators`` counts what ONNX Runtime executes, after its own fusions, for the graph that was written (float32),
    the traced one, and the deployed one with its bit-widths.
    """
    from compressors.export.audit import audit as compare_with_torch
    from compressors.export.checks import ExportMismatchError

    inputs, recipe = JobInputs.model_validate(arguments["inputs"]), Recipe.model_validate(arguments["recipe"])
    context.progress({"doing": "comparing the best model with torch's own export"})
    work = bench(inputs, context)
    started = time.monotonic()
    try:
        found = compare_with_torch(work.candidate_network(recipe), recipe, work.range_feeds(recipe))
    except ExportMismatchError as error:
        return {"ok": False, "message": error.message, "seconds": round(time.monotonic() - started, 3)}
    return {
        "ok": True,
        "relative_error": found.check.relative_error,
        "tolerance": found.check.tolerance,
        "operators": {"written": found.emitted, "traced": found.traced, "deployed": found.deployed},
        "seconds": round(time.monotonic() - started, 3),
    }
