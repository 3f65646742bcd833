"""Zeros, chains and merged layers in the option database: their prices are those of the models that they describe."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.local_error import relative_errors
from compressors.network import EncoderNetwork
from compressors.options.branches import BranchLibrary
from compressors.options.database import BranchOption
from compressors.options.database import OptionSet
from compressors.options.database import build_options
from compressors.options.scoring import ScoringSet
from compressors.options.scoring import divergences
from compressors.options.secondary import ZEROS
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from tests.unit.options.conftest import LAYERS


@pytest.fixture(scope="module")
def everything(network: EncoderNetwork, calibration: Calibration, scoring: ScoringSet) -> OptionSet:
    dense = Recipe.dense(LAYERS)
    return build_options(network, calibration, scoring, dense, (32, 8), low_rank=True, zeros=True, depth=True)


def with_zeros(options: tuple[BranchOption, ...]) -> dict[tuple[str, float, str], BranchOption]:
    return {
        (option.recipe.mask, option.recipe.sparsity, option.recipe.pattern): option
        for option in options
        if option.recipe.sparsity and option.recipe.bits == 32 and option.recipe.level is None
    }


def test_every_way_of_choosing_zeros_is_there_and_they_differ_as_published(everything: OptionSet) -> None:
    for unit in everything.units:
        found = {key: option.error for key, option in with_zeros(unit.options).items()}
        assert len(found) == len(ZEROS)
        assert found["sparsegpt", 0.5, "unstructured"] < found["magnitude", 0.5, "unstructured"]
        for pattern in ("unstructured", "2:4"):
            assert found["sparsegpt", 0.5, pattern] < found["wanda", 0.5, pattern]
        for mask in ("wanda", "sparsegpt"):
            assert 0 < found[mask, 0.5, "unstructured"] < found[mask, 0.5, "2:4"]
        assert found["sparsegpt", 0.5, "2:4"] < found["sparsegpt", 0.8, "unstructured"] < 1


def test_zeros_are_stored_like_other_weights(everything: OptionSet) -> None:
    """No format that is written leaves them out, so an option must not promise a smaller file."""
    for unit in everything.units:
        assert {option.size_bytes for option in with_zeros(unit.options).values()} == {unit.options[0].size_bytes}


def test_chains_with_zeros_come_in_every_number_format(everything: OptionSet) -> None:
    """A database serves devices with and without int8."""
    for unit in everything.units:
        chains = [option.recipe for option in unit.options if option.recipe.level is not None]
        assert {recipe.bits for recipe in chains if recipe.sparsity} == {32, 8}


def test_prices_of_chains_are_those_of_the_whole_chain(
    network: EncoderNetwork, calibration: Calibration, everything: OptionSet
) -> None:
    library, chains = BranchLibrary(network, calibration, Recipe.dense(LAYERS)), 0
    for unit in everything.units:
        for option in unit.options:
            recipe = option.recipe
            if recipe.rank is None and not recipe.sparsity:
                continue
            chains += recipe.bits == 8
            branch = library.get(unit.layer, recipe)
            layers = list(network.layers)
            layers[unit.layer] = replace(layers[unit.layer], **{unit.kind: branch.network})
            errors = relative_errors(network, replace(network, layers=layers), calibration, "obs")
            parts = [error for name, error in errors.items() if name.startswith(f"{unit.layer}.{unit.kind}")]
            expected = 1 - torch.tensor([1 - min(part, 1.0) for part in parts]).double().prod()
            assert option.error == pytest.approx(float(expected), rel=1e-5, abs=1e-9)
            assert option.divergence > 0
    assert chains >= len(everything.units)


def test_merged_layers_have_the_divergence_of_the_built_model(
    network: EncoderNetwork, calibration: Calibration, examples: list[dict[str, Tensor]], everything: OptionSet
) -> None:
    (merge,) = everything.merges
    assert (merge.layer, merge.merged) == (0, 1)
    recipe = Recipe(layers=(LayerRecipe(merged=1), LayerRecipe(removed=True)))
    dense, candidate = to_module(network), to_module(apply_recipe(network, calibration, recipe))
    drops = [
        to_module(apply_recipe(network, calibration, Recipe(layers=layers)))
        for layers in ((LayerRecipe(), LayerRecipe(removed=True)), (LayerRecipe(removed=True), LayerRecipe()))
    ]
    with torch.inference_mode():

        def divergence(module: torch.nn.Module) -> float:
            return float(
                torch.cat(
                    [divergences(dense(**text), module(**text), classifier=True) for text in examples[64:]]
                ).mean()
            )

        assert merge.divergence == pytest.approx(divergence(candidate), rel=1e-4, abs=1e-7)
        dropped = [divergence(module) for module in drops]
        assert everything.drops[::-1] == pytest.approx(dropped, rel=1e-4, abs=1e-7)
        assert merge.dropped == min(everything.drops)
