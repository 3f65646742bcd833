"""Write the folder that a user downloads."""

import shutil
from pathlib import Path

from compressors.export.baseline_folder import export_baseline_folder
from compressors.export.manifest import Provenance
from compressors.export.onnx_folder import export_onnx_folder
from compressors.export.torch_folder import export_torch_folder
from compressors.recipe import BaselineCandidate
from compressors.usage import Runtime
from infra.database.models import JsonObject
from infra.errors import InvalidInputError
from profilers.types import Precision
from workers.operations.artifacts import parse_candidate
from workers.operations.bench import bench
from workers.operations.build import build_artifact
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext


def export(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "candidate", "format", "provenance"} -> {"folder"}``; checked against torch before it is offered.

    A baseline is a file of its own tool: the format ``onnx`` gives it as it was measured, which may be OpenVINO's own
    form or a ``.pt2`` file.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    candidate = parse_candidate(arguments["candidate"])
    provenance = _provenance(inputs, arguments["provenance"])
    work = bench(inputs, context)
    folder = _empty(inputs.work / "exports" / f"{arguments['provenance']['trial']}-{arguments['format']}")
    if isinstance(candidate, BaselineCandidate):
        _export_baseline(inputs, candidate, arguments["format"], folder, provenance, context)
        return {"folder": str(folder)}
    provenance = provenance.model_copy(update={"runtime": _runtime(inputs, candidate.recipe.precision)})
    network = work.candidate_network(candidate.recipe)
    if arguments["format"] == "torch":
        export_torch_folder(network, candidate.recipe, inputs.model, folder, provenance)
    else:
        shape = (inputs.workload.batch, inputs.workload.sequence_length)
        feeds = work.range_feeds(candidate.recipe)
        export_onnx_folder(network, candidate.recipe, inputs.model, folder, provenance, static=shape, feeds=feeds)
    return {"folder": str(folder)}


def _export_baseline(
    inputs: JobInputs,
    candidate: BaselineCandidate,
    format_: str,
    folder: Path,
    provenance: Provenance,
    context: OperationContext,
) -> None:
    artifact, _ = build_artifact(inputs, candidate, context)
    if format_ == "torch" and artifact.format != "torch":
        raise InvalidInputError(
            f"The baseline {candidate.name} does not exist as torch: it is a file of its own tool.",
            hint="Ask for the format onnx: it gives the file as it was measured.",
        )
    network = bench(inputs, context).network
    precision = None if artifact.format == "torch" else artifact.precision
    provenance = provenance.model_copy(update={"runtime": _runtime(inputs, precision)})
    export_baseline_folder(artifact.path, artifact.format, network, candidate, inputs.model, folder, provenance)


def _runtime(inputs: JobInputs, precision: Precision | None) -> Runtime:
    return Runtime(profiler=inputs.device.profiler, precision=precision, form=inputs.form)


def _provenance(inputs: JobInputs, given: JsonObject) -> Provenance:
    measurement = given["measurement"]  # a model that was evaluated only has none
    told = {"confirmed": given["confirmed"], "device": inputs.device.name}
    qualities = [quality for quality in (given["quality"], given["search_quality"]) if quality]
    distinct = [quality for index, quality in enumerate(qualities) if quality not in qualities[:index]]
    return Provenance(
        task=inputs.task,
        sources={"job": given["job_id"], "trial": str(given["trial"])},
        measurements=[measurement | told] if measurement else [],
        quality=distinct,
        notes=tuple(given.get("notes", ())),
    )


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
