"""Recipes that tests share."""

from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe

UNEVEN = Recipe(
    layers=(
        LayerRecipe(attention=AttentionRecipe(heads=3), feed_forward=FeedForwardRecipe(intermediate_size=40, rank=6)),
        LayerRecipe(attention=AttentionRecipe(rank=5, bits=8), feed_forward=FeedForwardRecipe(intermediate_size=0)),
    )
)
"""Different in every layer: heads, widths, ranks, bits, a missing branch."""


def uneven_candidate(network: EncoderNetwork, calibration: Calibration) -> EncoderNetwork:
    """Apply :data:`UNEVEN` to a two-layer model."""
    return apply_recipe(network, calibration, UNEVEN)
