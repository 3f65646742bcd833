"""Any legal candidate, written as ONNX, is the same function as its torch module."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings

from compressors.export.checks import compare
from compressors.export.checks import example_feeds
from compressors.export.checks import module_runner
from compressors.export.checks import onnx_runner
from compressors.export.checks import rounding_tolerance
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
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


def _assert_equal(network: EncoderNetwork, recipe: Recipe) -> None:
    feeds = example_feeds(network)
    with tempfile.TemporaryDirectory() as directory:
        path = write_onnx(network, recipe, Path(directory) / "model.onnx", feeds=feeds).path
        onnx.checker.check_model(onnx.load(path), full_check=recipe.graph.operators == "standard")
        tolerance = rounding_tolerance(network, recipe.quantization, feeds)
        check = compare(onnx_runner(path), module_runner(to_module(network)), feeds, tolerance)
    assert np.isfinite(check.largest_difference)
    assert check.relative_error <= check.tolerance, check
