"""Who rounds weights to judge a model rounds them as its file does: options, repair, and GPTQ beforehand."""

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor

from compressors.anatomy import describe
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.export.checks import example_feeds
from compressors.export.defaults import default_graph
from compressors.export.defaults import default_quantization
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.network import Linear
from compressors.options.branches import BranchLibrary
from compressors.options.branches import stored_bytes
from compressors.options.scoring import divergences
from compressors.recipe import BLOCK
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.repair.sequential import HOLD_OUT
from compressors.repair.sequential import repair_sequentially
from compressors.torch_module import to_module
from profilers.types import Capabilities
from search.canonical import canonicalise
from search.formats import NumberFormat
from search.formats import alternatives
from search.formats import in_format
from search.formats import offered_formats
from search.prepared import GraphDefaults

CAPABILITIES = Capabilities(
    profiler="openvino", available=True, bits=(32, 8, 4), schemes=("dynamic", "static", "weight_only")
)
PREFERRED = default_quantization("openvino")
REMOVED = FeedForwardRecipe(intermediate_size=0)


def formats() -> list[NumberFormat]:
    """What jobs on OpenVINO, whose preferred format is smoothed, may try."""
    offered = offered_formats(CAPABILITIES, GraphDefaults(quantization=PREFERRED), None)
    unsmoothed = NumberFormat(8, PREFERRED.model_copy(update={"smoothing": 0.0}))
    return [unsmoothed, *alternatives(offered, (32, 8))]


def name_of(number_format: NumberFormat) -> str:
    return number_format.name


def recipe_in(number_format: NumberFormat, network: EncoderNetwork) -> Recipe:
    dense = Recipe.dense(len(network.layers))
    dense = dense.model_copy(update={"graph": default_graph("openvino", {number_format.bits})})
    return canonicalise(in_format(dense, number_format), describe(network))


def in_file(path: Path, name: str) -> Tensor:
    """Read a matrix ``[out, in]`` as the runtime does."""
    found = {item.name: item for item in onnx.load(path).graph.initializer}
    values = numpy_helper.to_array(found[f"{name}.weight"]).astype(np.float32)
    scales = numpy_helper.to_array(found[f"{name}.weight.scale"])
    if scales.ndim == 2:
        scales = scales.repeat(BLOCK, axis=0)[: len(values)]
    return torch.from_numpy((values * scales).T.copy())


@pytest.mark.parametrize("number_format", formats(), ids=name_of)
def test_options_and_gptq_have_the_weights_of_the_file(
    network: EncoderNetwork, calibration: Calibration, tmp_path: Path, number_format: NumberFormat
) -> None:
    recipe = recipe_in(number_format, network)
    candidate = apply_recipe(network, calibration, recipe)
    path = write_onnx(candidate, recipe, tmp_path / "model.onnx", feeds=example_feeds(network)).path
    branch = BranchLibrary(network, calibration, recipe).get(0, recipe.layers[0].feed_forward)
    for linear, solved, name in zip(branch.linears, _linears(candidate), ("up", "down"), strict=True):
        stored = in_file(path, f"layer.0.feed_forward.{name}")
        torch.testing.assert_close(linear.matrix(), stored, rtol=1e-6, atol=0)
        if recipe.quantization.rounding == "gptq":
            torch.testing.assert_close(solved.matrix(), stored, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_size_of_an_option_counts_the_scales_of_its_blocks(
    network: EncoderNetwork, calibration: Calibration, tmp_path: Path, bits: int
) -> None:
    """Against what the file of few bits has less than that of a smaller model of the same few bits."""
    number_format = NumberFormat(bits, QuantizationRecipe(scheme="weight_only"))
    recipe = recipe_in(number_format, network)
    library = BranchLibrary(network, calibration, recipe)
    sizes = []
    for layer in (recipe.layers[0], LayerRecipe(attention=recipe.layers[0].attention, feed_forward=REMOVED)):
        shorter = recipe.model_copy(update={"layers": (layer, *recipe.layers[1:])})
        candidate = apply_recipe(network, calibration, shorter)
        path = write_onnx(candidate, shorter, tmp_path / "model.onnx").path
        sizes.append(sum(item.ByteSize() for item in onnx.load(path).graph.initializer))
    branch = library.get(0, recipe.layers[0].feed_forward)
    found = stored_bytes(branch.linears, recipe.quantization)
    assert found == pytest.approx(sizes[0] - sizes[1], rel=0.05)


@pytest.mark.parametrize("operators", ["contrib", "standard"])
@pytest.mark.parametrize("number_format", [entry for entry in formats() if "weights" in entry.name], ids=name_of)
def test_repair_judges_what_the_file_computes(
    network: EncoderNetwork,
    calibration: Calibration,
    tmp_path: Path,
    number_format: NumberFormat,
    operators: Literal["contrib", "standard"],
) -> None:
    """With ONNX Runtime's own operators, that is products of integers, and of floats in any other file as it stands."""
    recipe = recipe_in(number_format, network)
    recipe = recipe.model_copy(update={"graph": GraphRecipe(operators=operators)})
    candidate = apply_recipe(network, calibration, recipe)
    feeds = [{name: torch.from_numpy(values) for name, values in feed.items()} for feed in example_feeds(network)]
    batches = (feeds * HOLD_OUT)[:HOLD_OUT]
    found = repair_sequentially(network, candidate, calibration, recipe, batches)
    path = write_onnx(candidate, recipe, tmp_path / "model.onnx", feeds=example_feeds(network)).path
    options = onnxruntime.SessionOptions()
    if operators == "standard":  # optimised, ONNX Runtime finds its own operators in it
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = {item.name for item in session.get_inputs()}
    deployed = session.run(None, {name: value for name, value in example_feeds(network)[1].items() if name in names})
    with torch.no_grad():
        dense = to_module(network)(**batches[1])
    expected = float(divergences(dense, torch.from_numpy(deployed[0]), classifier=True).mean())
    assert found.before == pytest.approx(expected, rel=0.05)


def _linears(network: EncoderNetwork) -> tuple[Linear, Linear]:
    branch = network.layers[0].feed_forward
    assert branch is not None
    return branch.up, branch.down
