"""Writes the models that the latency table is measured with."""

from compressors.description import Anatomy
from compressors.export.onnx import write_onnx
from compressors.options.blocks import block_network
from compressors.recipe import Recipe
from infra.database.models import JsonObject
from profilers.types import Artifact
from profilers.types import Capabilities
from search.prepared import GraphDefaults
from workers.operations.bench import Bench
from workers.operations.bench import bench
from workers.operations.inputs import JobInputs
from workers.operations.table import Block
from workers.operations.table import plan
from workers.runner.operation import OperationContext


def table_blocks(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "anatomy", "capabilities", "graph_defaults"} -> {"blocks": [{"block", "artifact"}]}``."""
    inputs = JobInputs.model_validate(arguments["inputs"])
    anatomy = Anatomy.model_validate(arguments["anatomy"])
    capabilities = Capabilities.model_validate(arguments["capabilities"])
    defaults = GraphDefaults.model_validate(arguments["graph_defaults"])
    context.progress({"doing": "writing building blocks"})
    work = bench(inputs, context)
    found = [
        {"block": block.model_dump(mode="json"), "artifact": _write(work, block, defaults).model_dump(mode="json")}
        for block in plan(anatomy, capabilities, defaults)
    ]
    return {"blocks": found}


def _write(work: Bench, block: Block, defaults: GraphDefaults) -> Artifact:
    directory = work.inputs.work / "blocks"
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{block.name}.onnx"
    network = block_network(
        work.network, heads=block.heads, width=block.width, rank=block.rank, bits=block.bits, extent=block.extent
    )
    recipe = Recipe.dense(len(work.network.layers)).model_copy(
        update={
            "graph": defaults.graph.model_copy(update={"first_token_head": block.first_token}),
            "quantization": defaults.quantization,
            "precision": block.precision,
        }
    )
    workload = work.inputs.workload
    static = (workload.batch, workload.sequence_length) if defaults.graph.static_shape else None
    feeds = work.calibration_feeds()[:8] if block.bits == 8 and defaults.quantization.scheme == "static" else None
    write_onnx(network, recipe, path, static=static, feeds=feeds)
    return Artifact(path=path, precision=block.precision)
