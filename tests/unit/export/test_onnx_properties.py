"""Any legal candidate, written as ONNX, is the same function as its torch module."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings

from compressors.export.checks import SHAPES
from compressors.export.checks import compare
from compressors.export.checks import example_feeds
from compressors.export.checks import module_runner
from compressors.export.checks import onnx_runner
from compressors.export.checks import rounding_tolerance
from compressors.export.checks import static_feeds
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from tests.unit.export.candidates import cut
from tests.unit.export.candidates import recipes
from tests.unit.export.conftest import CASES

quick = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("case", CASES, ids="-".join)
@quick
@given(recipe=recipes(bits=(32,), embedding_bits=(32,)))
def test_float_candidates_equal_torch(
    networks: dict[tuple[str, str], EncoderNetwork], case: tuple[str, str], recipe: Recipe
) -> None:
    _assert_equal(cut(networks[case], recipe), recipe)


@pytest.mark.parametrize("case", CASES, ids="-".join)
@quick
@given(recipe=recipes(bits=(32, 16, 8, 4), embedding_bits=(32, 8)))
def test_rounded_candidates_stay_within_the_tolerance_of_their_bits(
    networks: dict[tuple[str, str], EncoderNetwork], case: tuple[str, str], recipe: Recipe
) -> None:
    _assert_equal(cut(networks[case], recipe), recipe)


def test_the_tolerance_of_weight_only_layers_counts_what_the_kernel_rounds(
    networks: dict[tuple[str, str], EncoderNetwork],
) -> None:
    """``MatMulNBits`` computes in int8: where the rounded weights are nearly exact, that is most of the error."""
    gone = LayerRecipe(removed=True)
    layer = LayerRecipe(
        attention=AttentionRecipe(rank=4, sparsity=0.5, pattern="2:4", bits=8),
        feed_forward=FeedForwardRecipe(intermediate_size=49, sparsity=0.9, bits=8),
    )
    recipe = Recipe(
        layers=(layer, gone, gone),
        quantization=QuantizationRecipe(scheme="weight_only", embedding_bits=8),
        graph=GraphRecipe(layout="sequence_first", packed_qkv=False, gelu="erf", static_shape=True),
    )
    _assert_equal(cut(networks["distilbert", "sequence-classification"], recipe), recipe)


def test_zeros_and_fixed_shapes_are_among_what_is_drawn() -> None:
    seen: Counter[str] = Counter()

    @quick
    @given(recipe=recipes(bits=(32,), embedding_bits=(32,)))
    def draw(recipe: Recipe) -> None:
        present = [layer for layer in recipe.layers if not layer.removed]
        branches = [branch for layer in present for branch in (layer.attention, layer.feed_forward)]
        seen["fixed" if recipe.graph.static_shape else "free"] += 1
        seen.update(branch.pattern for branch in branches if branch.sparsity > 0)

    draw()
    assert all(seen[name] >= 3 for name in ("fixed", "free", "unstructured", "2:4")), seen


def _assert_equal(network: EncoderNetwork, recipe: Recipe) -> None:
    for shape in SHAPES[1:3] if recipe.graph.static_shape else (None,):
        feeds = example_feeds(network) if shape is None else static_feeds(network, shape)
        with tempfile.TemporaryDirectory() as directory:
            path = write_onnx(network, recipe, Path(directory) / "model.onnx", static=shape, feeds=feeds).path
            onnx.checker.check_model(onnx.load(path), full_check=recipe.graph.operators == "standard")
            tolerance = rounding_tolerance(network, recipe.quantization, feeds)
            check = compare(onnx_runner(path), module_runner(to_module(network)), feeds, tolerance)
        assert np.isfinite(check.largest_difference)
        assert check.relative_error <= check.tolerance, (shape, check)
