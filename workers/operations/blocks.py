"""Writes the models that the latency table is measured with."""

from pathlib import Path

from compressors.description import Anatomy
from compressors.network import EncoderNetwork
from compressors.options.blocks import block_network
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra.database.models import JsonObject
from profilers.types import Artifact
from profilers.types import Capabilities
from profilers.types import Form
from search.prepared import GraphDefaults
from workers.operations.bench import bench
from workers.operations.data import Feeds
from workers.operations.forms import write_network
from workers.operations.inputs import JobInputs
from workers.operations.table import plan
from workers.operations.table_block import Block
from workers.operations.width_steps import step_blocks
from workers.runner.operation import OperationContext

RANGE_TEXTS = 8
"""Texts that activation ranges are taken from: the values of a range do not change the time."""


def table_blocks(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "anatomy", "capabilities", "graph_defaults"} -> {"blocks", "steps"}``.

    Both are lists of ``{"block", "artifact"}``.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    anatomy = Anatomy.model_validate(arguments["anatomy"])
    capabilities = Capabilities.model_validate(arguments["capabilities"])
    defaults = GraphDefaults.model_validate(arguments["graph_defaults"])
    context.progress({"doing": "writing building blocks"})
    work = bench(inputs, context)
    inputs.blocks.mkdir(parents=True, exist_ok=True)
    workload = inputs.workload
    static = (workload.batch, workload.sequence_length) if defaults.graph.static_shape else None
    ranges = work.calibration_feeds()[:RANGE_TEXTS] if defaults.quantization.scheme == "static" else None

    def written(blocks: list[Block]) -> list[JsonObject]:
        found = []
        for block in blocks:
            path = write_block(work.network, block, defaults, inputs.blocks, inputs.form, static=static, feeds=ranges)
            found.append({"block": block.model_dump(mode="json"), "artifact": path.model_dump(mode="json")})
        return found

    facts = (anatomy, capabilities, defaults)
    return {"blocks": written(plan(*facts)), "steps": written(step_blocks(*facts))}


def write_block(
    network: EncoderNetwork,
    block: Block,
    defaults: GraphDefaults,
    directory: Path,
    form: Form = "onnx",
    *,
    static: tuple[int, int] | None = None,
    feeds: list[Feeds] | None = None,
) -> Artifact:
    """Write one block in the device's preferred graph.

    Args:
        network: The dense model.
        block: What to write.
        defaults: The device's preferred graph and quantisation.
        directory: Where the file is put.
        form: What the device opens.
        static: Batch and sequence length to write into the graph.
        feeds: Inputs for the ranges of activations; needed by the static scheme.
    """
    extent = "all" if block.extent == "whole" else block.extent
    blocks = block_network(network, block.attention, block.feed_forward, extent)
    layer = LayerRecipe(attention=block.attention, feed_forward=block.feed_forward)
    graph = defaults.graph_for(Recipe(layers=(layer,)))
    recipe = Recipe.dense(len(network.layers)).model_copy(
        update={
            "graph": graph.model_copy(update={"first_token_head": block.first_token}),
            "quantization": defaults.quantization,
            "precision": block.precision,
        }
    )
    return write_network(blocks, recipe, directory / block.name, form, static=static, feeds=feeds)
