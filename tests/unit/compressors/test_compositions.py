"""Chains of methods on one matrix: the error of the whole chain, from moments alone, is that of the activations."""

import itertools

import pytest
import torch

from compressors.calibration.cache import ByteCache
from compressors.linear_algebra import composed_error
from compressors.methods.least_squares import removal_update
from compressors.network import Linear
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.refinement import MatrixInput
from compressors.refinement import refine
from tests.unit.compressors.data import centred_output_error
from tests.unit.compressors.data import correlated_inputs
from tests.unit.compressors.data import moments_of
from tests.unit.compressors.data import random_weight

EVERY_INPUT, SOME_INPUTS = torch.arange(16), torch.tensor([0, 2, 3, 4, 7, 8, 9, 11, 12, 13, 14, 15])


@pytest.mark.parametrize("mask", ["magnitude", "wanda", "sparsegpt"])
@pytest.mark.parametrize(
    ("kept", "rank", "sparsity", "bits"),
    list(itertools.product((EVERY_INPUT, SOME_INPUTS), (None, 3), (0.0, 0.5), (32, 8, 4))),
)
def test_error_of_a_chain_is_that_of_the_activations(kept, rank, sparsity, bits, mask):
    inputs, weight = correlated_inputs(300, 16), random_weight(9, 16)
    moments = moments_of(inputs)
    pruned = removal_update(weight, moments.centred, kept)
    recipe = Recipe.dense(1).model_copy(update={"quantization": QuantizationRecipe(rounding="gptq")})
    branch = FeedForwardRecipe(rank=rank, sparsity=sparsity, mask=mask, bits=bits)
    given = MatrixInput(lambda: moments.restrict(kept))
    final = refine(Linear(pruned.float()), given, branch, recipe, ByteCache(0), "matrix").matrix().double()
    whole = torch.zeros_like(weight)
    whole[:, kept] = final
    expected = centred_output_error(inputs, weight - whole)
    assert composed_error(weight, final, kept, moments.centred) == pytest.approx(expected, rel=1e-8, abs=1e-6)
    if (rank, sparsity, bits) != (None, 0.0, 32):
        assert expected > composed_error(weight, pruned, kept, moments.centred)
