"""Kinds of options beside widths and bits: low rank, zeros, and chains of them. Few levels of each: they cost time.

Whether a device gains from them is for its capabilities and its latency table to say; here, they only have a price.
"""

from collections.abc import Iterator
from typing import Any

from compressors.network import Layer
from compressors.options.levels import STEPS
from compressors.options.levels import USUAL_STEP
from compressors.options.levels import low_ranks
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe

ZEROS: tuple[dict[str, Any], ...] = (
    {"mask": "magnitude", "sparsity": 0.5},
    {"mask": "wanda", "sparsity": 0.5},
    {"mask": "wanda", "sparsity": 0.5, "pattern": "2:4"},
    {"mask": "sparsegpt", "sparsity": 0.5},
    {"mask": "sparsegpt", "sparsity": 0.8},
    {"mask": "sparsegpt", "sparsity": 0.5, "pattern": "2:4"},
)
CHAINED_ZEROS: dict[str, Any] = {"mask": "wanda", "sparsity": 0.5}
"""What half a branch gets."""


def low_rank_recipes(floating: BranchRecipe, fewest: BranchRecipe, layer: Layer) -> Iterator[BranchRecipe]:
    """Yield factorised branches: the full width at every rank, and chains of half the width, a rank and bits.

    Args:
        floating: The dense branch in the most bits.
        fewest: The same in the fewest.
        layer: The dense layer.
    """
    for rank in _ranks(layer, floating):
        yield floating.model_copy(update={"rank": rank})
    formats = [fewest] if fewest == floating else [floating, fewest]
    halves = [_halved(dense, layer) for dense in formats]
    for dense in formats[1:] + [half for half in halves if half is not None]:
        for rank in _ranks(layer, dense)[:1]:
            yield dense.model_copy(update={"rank": rank})


def sparse_recipes(floating: BranchRecipe, fewest: BranchRecipe, layer: Layer) -> Iterator[BranchRecipe]:
    """Yield the full width with zeros, and chains of half the width, zeros and bits.

    Args:
        floating: The dense branch in the most bits.
        fewest: The same in the fewest.
        layer: The dense layer.
    """
    for zeros in ZEROS:
        yield floating.model_copy(update=zeros)
    for dense in dict.fromkeys([floating, fewest]):
        half = _halved(dense, layer)
        if half is not None:
            yield half.model_copy(update=CHAINED_ZEROS)


def _halved(recipe: BranchRecipe, layer: Layer) -> BranchRecipe | None:
    if isinstance(recipe, AttentionRecipe):
        assert layer.attention is not None
        return recipe.model_copy(update={"heads": layer.attention.heads // 2}) if layer.attention.heads > 1 else None
    assert layer.feed_forward is not None
    half = layer.feed_forward.intermediate_size // 2
    width = half // STEPS[-1] * STEPS[-1] or half // USUAL_STEP * USUAL_STEP  # a width for any device, if there is one
    return recipe.model_copy(update={"intermediate_size": width}) if width else None


def _ranks(layer: Layer, recipe: BranchRecipe) -> tuple[int, ...]:
    """Ranks of the matrix that writes to the residual stream, in the branch's width."""
    if isinstance(recipe, AttentionRecipe):
        assert layer.attention is not None
        heads = layer.attention.heads if recipe.heads is None else recipe.heads
        return low_ranks(heads * layer.attention.head_size, layer.attention.output.outputs)
    assert layer.feed_forward is not None
    width = layer.feed_forward.intermediate_size if recipe.intermediate_size is None else recipe.intermediate_size
    return low_ranks(width, layer.feed_forward.down.outputs)
