"""Whatever goes wrong in a solver, its result does not lose to what needs none."""

import pytest
import torch

from compressors import refinement
from compressors.acceptance import accepted
from compressors.acceptance import is_no_worse
from compressors.apply import apply_recipe
from compressors.calibration import calibrate
from compressors.calibration.cache import ByteCache
from compressors.linear_algebra import composed_error
from compressors.methods.least_squares import NestedSolution
from compressors.methods.least_squares import removal_update
from compressors.methods.rounding import gptq
from compressors.methods.rounding import nearest
from compressors.moments import Moments
from compressors.network import Linear
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.refinement import MatrixInput
from compressors.refinement import refine
from tests.unit.compressors.data import correlated_inputs
from tests.unit.compressors.data import moments_of
from tests.unit.compressors.data import random_weight

KEPT = torch.tensor([0, 1, 3, 6, 7, 9])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_check_is_the_comparison_of_both_errors(dtype: torch.dtype) -> None:
    outcomes = set()
    for seed in range(40):
        weight, centred = random_weight(4, 10, seed), moments_of(correlated_inputs(60, 10, seed)).centred
        naive, solved = weight[:, KEPT], weight[:, KEPT] + 0.4 * random_weight(4, 6, seed + 100)
        if seed % 2:
            solved = removal_update(weight, centred, KEPT)
        expected = composed_error(weight, solved, KEPT, centred) <= composed_error(weight, naive, KEPT, centred)
        assert is_no_worse(weight, solved, naive, KEPT, centred.to(dtype)) == expected
        outcomes.add(expected)
    assert outcomes == {True, False}
    assert is_no_worse(weight, naive, naive, KEPT, centred.to(dtype))


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), 1e30])
def test_results_that_are_no_numbers_are_refused(broken: float) -> None:
    weight, centred = random_weight(4, 10), moments_of(correlated_inputs(60, 10)).centred
    solved = removal_update(weight, centred, KEPT)
    fallbacks: list[str] = []
    assert accepted("fine", weight, solved, weight[:, KEPT], centred, KEPT, fallbacks) is solved
    solved = solved.clone()
    solved[0, 0] = broken
    found = accepted("broken", weight, solved, weight[:, KEPT], centred, KEPT, fallbacks)
    assert torch.equal(found, weight[:, KEPT])
    assert fallbacks == ["broken"]


def test_a_removal_with_a_broken_solution_keeps_the_weights_and_refits_the_bias(bert, batches, monkeypatch) -> None:
    calibration = calibrate(bert, batches)
    plain = LayerRecipe(feed_forward=FeedForwardRecipe(intermediate_size=5))
    recipe = Recipe(layers=(plain, *(LayerRecipe() for _ in bert.layers[1:])))
    fallbacks: list[str] = []
    solved = apply_recipe(bert, calibration, recipe, fallbacks=fallbacks).layers[0].feed_forward.down
    assert fallbacks == []
    keep = NestedSolution.keep
    monkeypatch.setattr(
        NestedSolution, "keep", lambda self, count: (lambda kept, weight: (kept, -9 * weight))(*keep(self, count))
    )
    found = apply_recipe(bert, calibration, recipe, fallbacks=fallbacks).layers[0].feed_forward.down
    assert fallbacks == ["0.feed_forward.down"]
    monkeypatch.undo()
    none = recipe.model_copy(update={"compensation": "none"})
    naive = apply_recipe(bert, calibration, none).layers[0].feed_forward.down
    assert torch.equal(found.weight, naive.weight)
    assert not torch.equal(found.weight, solved.weight)
    assert not torch.equal(found.bias, naive.bias), "the bias cannot be worse than it was"


@pytest.mark.parametrize("method", ["gptq", "sparsegpt"])
def test_zeros_and_rounding_fall_back_as_well(method: str, monkeypatch) -> None:
    weight, moments = random_weight(6, 32).float(), moments_of(correlated_inputs(200, 32))
    given = MatrixInput(lambda: Moments(moments.centred, moments.mean, moments.count))
    branch = FeedForwardRecipe(bits=4) if method == "gptq" else FeedForwardRecipe(sparsity=0.5, mask="sparsegpt")
    recipe = Recipe(layers=(), quantization=QuantizationRecipe(rounding="gptq" if method == "gptq" else "nearest"))
    original, fallbacks = getattr(refinement, method), []

    def broken(*arguments, **options):
        found = original(*arguments, **options)
        return -found if method == "gptq" else (-found[0], found[1])

    def result():
        return refine(Linear(weight), given, branch, recipe, ByteCache(0), "matrix", fallbacks).matrix()

    fine = result()
    assert fallbacks == []
    monkeypatch.setattr(refinement, method, broken)
    found = result()
    assert fallbacks == ["matrix"]
    expected = nearest(weight, 4, size=32).float() if method == "gptq" else weight * (fine != 0)
    torch.testing.assert_close(found, expected)
    assert not torch.equal(found, fine)


@pytest.mark.parametrize(("bits", "size"), [(8, None), (7, None), (4, 32)])
def test_nearest_is_the_grid_of_gptq_without_its_compensation(bits: int, size: int | None) -> None:
    """Inputs that have nothing to do with each other leave nothing to compensate."""
    weight = random_weight(5, 96)
    centred = torch.diag(torch.rand(96, dtype=torch.float64) + 0.5)
    torch.testing.assert_close(nearest(weight, bits, size=size), gptq(weight, centred, bits, size=size))
