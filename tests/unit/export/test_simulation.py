"""What is played through in torch is what files with few bits compute, for whole batches and text by text.

Weights use 7 bits, so that sums of integers are exact on any processor.
"""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.export.checks import Feeds
from compressors.export.checks import example_feeds
from compressors.export.checks import module_runner
from compressors.export.checks import onnx_runner
from compressors.export.onnx import write_onnx
from compressors.export.simulation import FileArithmetic
from compressors.export.simulation import rounded_module
from compressors.network import EncoderNetwork
from compressors.options.branches import BranchLibrary
from compressors.options.scoring import ScoringSet
from compressors.options.stitch import StitchedModel
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.repair.walk import Walk
from compressors.torch_module import to_module

TEXTS = 6
SAME = 1e-5
"""Relative error of what is the same but for the order of sums; few values fall to the other side of a step by that."""


@pytest.fixture(scope="module", params=["bert", "roberta", "distilbert"])
def network(networks: dict[tuple[str, str], EncoderNetwork], request: pytest.FixtureRequest) -> EncoderNetwork:
    """A classifier of two token types, one, or none, whose biases are as large as trained ones."""
    found = copy.deepcopy(networks[request.param, "sequence-classification"])
    generator = torch.Generator().manual_seed(1)
    for layer in found.layers:
        assert layer.attention is not None
        for linear in (layer.attention.query, layer.attention.value, layer.attention.output):
            linear.bias = torch.randn(linear.outputs, generator=generator) * 0.3
    return found


@pytest.fixture(scope="module")
def feeds(network: EncoderNetwork) -> list[Feeds]:
    """Texts of the same length: padding is part of a call."""
    found = example_feeds(network, shapes=((TEXTS, 20),) * 4)
    for item in found:
        item["attention_mask"][:] = 1
    return found


@pytest.fixture(scope="module")
def calibration(network: EncoderNetwork, feeds: list[Feeds]) -> Calibration:
    return calibrate(network, batches(feeds))


@pytest.fixture(scope="module")
def recipe(network: EncoderNetwork) -> Recipe:
    return Recipe(
        layers=tuple(LayerRecipe().with_branches(bits=8) for _ in network.layers),
        quantization=QuantizationRecipe(reduce_range=True, embedding_bits=8),
        graph=GraphRecipe(first_token_head=False),
    )


@pytest.fixture(scope="module")
def candidate(network: EncoderNetwork, calibration: Calibration, recipe: Recipe) -> EncoderNetwork:
    return apply_recipe(network, calibration, recipe)


def batches(feeds: list[Feeds]) -> list[dict[str, Tensor]]:
    return [{name: torch.from_numpy(array) for name, array in item.items()} for item in feeds]


def one_by_one(feeds: list[Feeds]) -> list[Feeds]:
    return [{name: array[[row]] for name, array in item.items()} for item in feeds for row in range(TEXTS)]


def in_file(network: EncoderNetwork, recipe: Recipe, path: Path, feeds: list[Feeds]) -> NDArray[np.float32]:
    run = onnx_runner(write_onnx(network, recipe, path / "model.onnx").path)
    return np.concatenate([run(item) for item in feeds])


def error(outputs: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.median(np.abs(outputs - expected)) / expected.std())


def test_the_module_for_checks_computes_what_a_call_with_the_batch_does(
    candidate: EncoderNetwork, recipe: Recipe, feeds: list[Feeds], tmp_path: Path
) -> None:
    run = module_runner(rounded_module(candidate, recipe.quantization))
    outputs = np.concatenate([run(item) for item in feeds])
    assert error(outputs, in_file(candidate, recipe, tmp_path, feeds)) < SAME
    assert error(outputs, in_file(candidate, recipe, tmp_path, one_by_one(feeds))) > 100 * SAME


def test_repair_judges_what_calls_with_one_text_each_compute(
    network: EncoderNetwork,
    candidate: EncoderNetwork,
    recipe: Recipe,
    calibration: Calibration,
    feeds: list[Feeds],
    tmp_path: Path,
) -> None:
    walk = Walk(network, candidate, calibration, recipe, [(batch, True) for batch in batches(feeds)], frozenset())
    with torch.no_grad():
        walk.run()
        dense, outputs = (found.numpy() for found in walk.outputs())
    run = module_runner(to_module(network))
    assert error(dense, np.concatenate([run(item) for item in feeds])) < SAME
    assert error(outputs, in_file(candidate, recipe, tmp_path, one_by_one(feeds))) < SAME
    assert error(outputs, in_file(candidate, recipe, tmp_path, feeds)) > 100 * SAME


@pytest.mark.parametrize("heads", [None, 2])
def test_options_are_judged_by_what_calls_with_one_text_each_compute(
    network: EncoderNetwork,
    recipe: Recipe,
    calibration: Calibration,
    feeds: list[Feeds],
    tmp_path: Path,
    heads: int | None,
) -> None:
    """Whose bias of the values goes through the rounding neither of what the output reads nor of its weights."""
    changed = LayerRecipe(attention=AttentionRecipe(heads=heads, bits=8), feed_forward=FeedForwardRecipe(bits=8))
    layers = (changed, *(LayerRecipe() for _ in network.layers[1:]))
    quantization = recipe.quantization.model_copy(update={"embedding_bits": 32})
    recipe = recipe.model_copy(update={"layers": layers, "quantization": quantization})
    library = BranchLibrary(network, calibration, recipe)
    branches = {(0, "attention"): library.get(0, changed.attention)}
    branches[0, "feed_forward"] = library.get(0, changed.feed_forward)
    texts = ScoringSet.collect(batches(one_by_one(feeds)))
    model = StitchedModel(network, texts, arithmetic=FileArithmetic.of(recipe, "text"))
    outputs = model.outputs(branches).numpy()
    candidate = apply_recipe(network, calibration, recipe)
    expected = in_file(candidate, recipe, tmp_path, one_by_one(feeds))[list(texts.order)]
    assert error(outputs, expected) < SAME
