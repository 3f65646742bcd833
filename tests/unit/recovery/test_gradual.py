"""Pruning in steps: the ramp, and the family that comes of it."""

import pytest

from compressors.anatomy import describe
from compressors.apply import apply_recipe
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.data import TrainingData
from compressors.recovery.data import sequential_batches
from compressors.recovery.gradual import gradual
from compressors.recovery.ramp import cubic_fraction
from compressors.recovery.ramp import ramp
from infra.errors import InvalidInputError


def target(layers: int, heads: int, width: int) -> Recipe:
    layer = LayerRecipe(attention=AttentionRecipe(heads=heads), feed_forward=FeedForwardRecipe(intermediate_size=width))
    return Recipe(layers=(layer,) * layers)


def sizes(recipe: Recipe) -> list[tuple[int | None, int | None]]:
    return [(layer.attention.heads, layer.feed_forward.intermediate_size) for layer in recipe.layers]


def test_the_ramp_is_cubic_never_grows_and_ends_at_the_target(classifier: EncoderNetwork) -> None:
    assert [cubic_fraction(step, 4) for step in range(5)] == [0, 1 - 0.75**3, 1 - 0.5**3, 1 - 0.25**3, 1]
    wanted = target(3, 1, 8)
    recipes = ramp(describe(classifier), wanted, 4, granularity=4)
    assert len(recipes) == 4
    assert recipes[-1] == wanted
    heads, widths = ([sizes(recipe)[0][part] for recipe in recipes] for part in (0, 1))
    assert heads == sorted(heads, reverse=True)
    assert widths == [32, 16, 12, 8]  # 64 - 56 * (0.578, 0.875, 0.984, 1), rounded up to multiples of 4


def test_each_member_is_cut_from_the_healed_one_before(classifier: EncoderNetwork, texts: TrainingData) -> None:
    seen: list[EncoderNetwork] = []
    healed: list[EncoderNetwork] = []

    def prune(network: EncoderNetwork, recipe: Recipe) -> EncoderNetwork:
        seen.append(network)
        batches = [
            {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            for batch in sequential_batches(texts, 32)
        ]
        return apply_recipe(network, calibrate(network, batches), recipe)

    def heal(network: EncoderNetwork, number: int) -> EncoderNetwork:
        healed.append(network)
        return network

    recipes = ramp(describe(classifier), target(3, 2, 16), 3, granularity=8)
    stages = list(gradual(classifier, recipes, prune, heal))
    assert [stage.number for stage in stages] == [1, 2, 3]
    assert seen[0] is classifier
    assert seen[1:] == healed[:-1]
    for stage in stages:
        anatomy = describe(stage.network)
        assert list(zip(anatomy.heads, anatomy.intermediate_size, strict=True)) == sizes(stage.recipe)


def test_branches_cannot_fade_away(classifier: EncoderNetwork) -> None:
    with pytest.raises(InvalidInputError, match="whole layers"):
        ramp(describe(classifier), target(3, 0, 16), 3)
