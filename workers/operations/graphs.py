"""Writes the graphs that are raced for a device's best one."""

import copy
from dataclasses import replace

from compressors.export.checks import linears
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.recipe import Bits
from compressors.recipe import GraphRecipe
from compressors.recipe import Recipe
from infra.database.models import JsonObject
from profilers.types import Artifact
from search.prepared import GraphDefaults
from workers.operations.bench import bench
from workers.operations.blocks import RANGE_TEXTS
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext

LAYERS = 3
"""Layers of the models that are raced: two like all others, and the last, of which often only one token is needed."""


def graph_variants(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "graph_defaults", "bits", "graphs": {name: graph}} -> {"artifacts": {name: artifact}}``.

    The settings act on every layer alike, so the first layers and the last one stand for the whole model.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    defaults = GraphDefaults.model_validate(arguments["graph_defaults"])
    bits: Bits = arguments["bits"]
    context.progress({"doing": "writing the dense model as different graphs"})
    work = bench(inputs, context)
    network = shallow(work.network, bits)
    inputs.graphs.mkdir(parents=True, exist_ok=True)
    integers = bits == 8
    ranges = work.calibration_feeds()[:RANGE_TEXTS] if integers and defaults.quantization.scheme == "static" else None
    found = {}
    for name, payload in arguments["graphs"].items():
        graph = GraphRecipe.model_validate(payload)
        static = (inputs.workload.batch, inputs.workload.sequence_length) if graph.static_shape else None
        update = {"graph": graph, "quantization": defaults.quantization, "precision": defaults.precision}
        recipe = Recipe.dense(len(network.layers)).model_copy(update=update)
        path = inputs.graphs / f"{recipe.digest}-{bits}.onnx"
        if not path.exists():
            write_onnx(network, recipe, path, static=static, feeds=ranges)
        found[name] = Artifact(path=path, precision=defaults.precision).model_dump(mode="json")
    return {"artifacts": found}


def shallow(network: EncoderNetwork, bits: Bits) -> EncoderNetwork:
    """Return a copy of some layers of ``network``, the last among them, in ``bits`` bits."""
    layers = network.layers if len(network.layers) <= LAYERS else [*network.layers[: LAYERS - 1], network.layers[-1]]
    found = replace(network, layers=copy.deepcopy(layers))
    for linear in linears(found):
        linear.bits = bits
    return found
