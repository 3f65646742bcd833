"""The option database: errors are those of the models that the options describe."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration.cache import ByteCache
from compressors.local_error import relative_errors
from compressors.network import EncoderNetwork
from compressors.options.branches import BranchLibrary
from compressors.options.branches import stored_bytes
from compressors.options.database import BranchUnit
from compressors.options.database import OptionSet
from compressors.options.database import build_options
from compressors.options.errors import BranchErrors
from compressors.options.levels import all_width_levels
from compressors.options.levels import anchor_levels
from compressors.options.levels import computed_width_levels
from compressors.options.scoring import ScoringSet
from compressors.options.scoring import divergences
from compressors.options.stitch import StitchedModel
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from tests.unit.options.conftest import LAYERS

INTERPOLATED = set(all_width_levels(128)) - set(computed_width_levels(128))


def plain(unit: BranchUnit, bits: int = 32) -> list[tuple[int | None, float]]:
    field = "heads" if unit.kind == "attention" else "intermediate_size"
    return [
        (getattr(option.recipe, field), option.error)
        for option in unit.options
        if option.recipe.bits == bits and option.recipe.rank is None
    ]


def recipe_of(units: dict[tuple[int, str], object]) -> Recipe:
    layers = [LayerRecipe() for _ in range(LAYERS)]
    for (index, kind), recipe in units.items():
        layers[index] = layers[index].model_copy(update={kind: recipe})
    return Recipe(layers=tuple(layers))


def test_every_branch_has_dense_narrower_and_removed_options(options: OptionSet) -> None:
    assert [(unit.layer, unit.kind) for unit in options.units] == [
        (layer, kind) for layer in range(LAYERS) for kind in ("attention", "feed_forward")
    ]
    for unit in options.units:
        widths = [width for width, _ in plain(unit)]
        assert widths[0] is None
        assert widths[-1] == 0
        expected = [4, 3, 2, 1, 0] if unit.kind == "attention" else list(all_width_levels(128))
        assert [expected[0], *widths[1:]] == expected


def test_errors_grow_from_nothing_to_everything(options: OptionSet) -> None:
    for unit in options.units:
        errors = [error for _, error in plain(unit)]
        assert errors[0] == pytest.approx(0, abs=1e-9)
        assert errors[-1] == 1.0
        assert all(a <= b + 1e-6 for a, b in itertools.pairwise(errors))
        assert unit.options[0].divergence == 0


def test_rounding_costs_error_and_saves_bytes(options: OptionSet) -> None:
    for unit in options.units:
        floats, rounded = dict(plain(unit)), dict(plain(unit, 8))
        assert all(rounded[width] > floats[width] for width in rounded)
        sizes = {(str(o.recipe.model_copy(update={"bits": 32})), o.recipe.bits): o.size_bytes for o in unit.options}
        assert all(
            sizes[name, 8] < size / 2 for (name, bits), size in sizes.items() if bits == 32 and (name, 8) in sizes
        )


def test_errors_are_those_of_the_built_candidates(
    network: EncoderNetwork, calibration: Calibration, options: OptionSet
) -> None:
    for unit in options.units:
        for option in unit.options[1:-1:5]:
            width = getattr(option.recipe, "intermediate_size", None)
            if option.recipe.bits != 32 or option.recipe.rank is not None or width in INTERPOLATED:
                continue
            candidate = apply_recipe(network, calibration, recipe_of({(unit.layer, unit.kind): option.recipe}))
            last = "attention.output" if unit.kind == "attention" else "feed_forward.down"
            exact = relative_errors(network, candidate, calibration, "obs")[f"{unit.layer}.{last}"]
            assert option.error == pytest.approx(exact, rel=1e-9, abs=1e-12)


def test_widths_between_the_computed_ones_are_close_to_the_built_branches(
    network: EncoderNetwork, calibration: Calibration, options: OptionSet
) -> None:
    library = BranchLibrary(network, calibration, Recipe.dense(LAYERS))
    assert len(INTERPOLATED) >= 4
    for unit in options.units:
        if unit.kind != "feed_forward":
            continue
        errors = BranchErrors(network.layers[unit.layer], unit.kind, calibration, "obs")
        between = [option for option in unit.options if option.recipe.intermediate_size in INTERPOLATED]
        assert len(between) == 2 * len(INTERPOLATED)
        for option in between:
            branch = library.get(unit.layer, option.recipe)
            assert option.error == pytest.approx(errors.relative_error(branch), rel=0.05, abs=0.001)
            assert option.size_bytes == stored_bytes(branch.linears, library.recipe.quantization)


def test_anchor_divergence_is_that_of_the_torch_module(
    network: EncoderNetwork, calibration: Calibration, examples: list[dict[str, Tensor]], options: OptionSet
) -> None:
    unit = options.units[1]
    anchors = anchor_levels(computed_width_levels(128))
    dense = to_module(network)
    for option in unit.options:
        if option.recipe.intermediate_size not in anchors or option.recipe.bits != 32 or option.recipe.rank is not None:
            continue
        candidate = to_module(apply_recipe(network, calibration, recipe_of({(0, "feed_forward"): option.recipe})))
        with torch.inference_mode():
            found = [divergences(dense(**text), candidate(**text), classifier=True) for text in examples[64:]]
        assert option.divergence >= float(torch.cat(found).mean()) - 1e-7


def test_same_inputs_give_the_same_database(
    network: EncoderNetwork, calibration: Calibration, scoring: ScoringSet, options: OptionSet
) -> None:
    again = build_options(network, calibration, scoring, Recipe.dense(LAYERS), (32, 8), low_rank=True)
    assert again == options


def test_a_cache_that_is_too_small_for_the_factors_of_all_layers_changes_nothing(
    network: EncoderNetwork, calibration: Calibration, scoring: ScoringSet, options: OptionSet
) -> None:
    tight = replace(calibration, cache=ByteCache(calibration.cache.used // 2))
    assert build_options(network, tight, scoring, Recipe.dense(LAYERS), (32, 8), low_rank=True) == options


def test_stitched_model_equals_the_built_candidate(
    network: EncoderNetwork, calibration: Calibration, examples: list[dict[str, Tensor]], options: OptionSet
) -> None:
    text = ScoringSet.collect(examples[64:])
    library = BranchLibrary(network, calibration, Recipe.dense(LAYERS))
    dense = to_module(network)
    by_kind = {(unit.layer, unit.kind): unit for unit in options.units}
    combinations = (
        {(0, "attention"): 2, (1, "feed_forward"): 3},
        {(0, "attention"): 4, (0, "feed_forward"): 1, (1, "attention"): 1},
        {(1, "attention"): 4, (1, "feed_forward"): len(plain(by_kind[1, "feed_forward"])) - 1},
    )
    for combination in combinations:
        recipes = {key: by_kind[key].options[index].recipe for key, index in combination.items()}
        candidate = to_module(apply_recipe(network, calibration, recipe_of(recipes)))
        branches = {key: library.get(key[0], recipe) for key, recipe in recipes.items()}
        for keep in (False, True):
            stitched = StitchedModel(network, text, follow=keep).divergence(branches)
            with torch.inference_mode():
                found = [divergences(dense(**one), candidate(**one), classifier=True) for one in examples[64:]]
            assert stitched == pytest.approx(float(torch.cat(found).mean()), rel=1e-4, abs=1e-7)
