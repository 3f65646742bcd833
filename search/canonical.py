"""One spelling for each model: recipes that give the same model get the same digest."""

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.validation import has_lost_merge


def break_even_rank(rows: int, columns: int) -> int:
    """Smallest rank at which two factors hold no fewer weights than the ``rows x columns`` matrix."""
    return max(1, -(-rows * columns // (rows + columns)))


def canonicalise(recipe: Recipe, anatomy: Anatomy) -> Recipe:
    """Return the canonical form: the same model in the spelling that all equal models share.

    Widths at or above the dense one and ranks at or above break-even become ``None``; a removed branch or layer keeps
    no other setting; settings of methods that are not used take their defaults.

    Raises:
        ValueError: If the recipe has another number of layers than the model.
    """
    layers = tuple(
        _layer(layer, anatomy, heads, width)
        for layer, heads, width in zip(recipe.layers, anatomy.heads, anatomy.intermediate_size, strict=True)
    )
    layers = tuple(_without_lost_merges(layers, index) for index in range(len(layers)))
    present = [layer for layer in layers if not layer.removed]
    branches: list[BranchRecipe] = [branch for layer in present for branch in (layer.attention, layer.feed_forward)]
    shrunk = any(
        layer.attention.heads is not None or layer.feed_forward.intermediate_size is not None for layer in present
    )
    unused: dict[str, object] = {}
    if not shrunk:
        unused |= {"criterion": "obs", "compensation": "least_squares"}
    if all(branch.rank is None for branch in branches):
        unused |= {"factorization": "whitened"}
    unused["quantization"] = _quantization(recipe.quantization, {branch.bits for branch in branches})
    changed = len(present) < len(layers) or any(_is_changed(branch) for branch in branches)
    if recipe.weights is not None or not (shrunk or changed):
        unused |= {"repair": "none"}
    return recipe.model_copy(update={"layers": layers} | unused)


def _quantization(given: QuantizationRecipe, bits: set[int]) -> QuantizationRecipe:
    """Settings that no branch uses take their defaults; a model that is floating point throughout has its tables so.

    GPTQ puts the weights on a grid that smoothing would move them off, to be rounded once more: it goes alone.
    """
    if not bits & {4, 8}:
        return QuantizationRecipe()
    if 8 not in bits or given.scheme == "weight_only":
        kept = given.model_dump(include={"embedding_bits", "rounding"})
        return QuantizationRecipe(scheme="weight_only", **kept)
    if given.scheme == "static":
        return given.model_copy(update={"smoothing": 0.0}) if given.rounding == "gptq" else given
    return given.model_copy(update={"ranges": QuantizationRecipe().ranges, "smoothing": 0.0})


def _is_changed(branch: BranchRecipe) -> bool:
    return branch.bits < 16 or branch.rank is not None or branch.sparsity > 0


def _layer(layer: LayerRecipe, anatomy: Anatomy, heads: int, width: int) -> LayerRecipe:
    attention = _attention(layer.attention, anatomy, heads)
    feed_forward = _feed_forward(layer.feed_forward, anatomy, width)
    if layer.removed or (attention.heads == 0 and feed_forward.intermediate_size == 0):
        return LayerRecipe(removed=True)
    return LayerRecipe(attention=attention, feed_forward=feed_forward, merged=layer.merged)


def _without_lost_merges(layers: tuple[LayerRecipe, ...], index: int) -> LayerRecipe:
    """Nothing is merged into a layer unless the layers that would be are removed."""
    layer = layers[index]
    return layer.model_copy(update={"merged": 0}) if has_lost_merge(layers, index) else layer


def _zeros(branch: BranchRecipe) -> dict[str, object]:
    """How zeros are chosen means nothing where there are none."""
    return {} if branch.sparsity else {"mask": "wanda", "pattern": "unstructured"}


def _attention(branch: AttentionRecipe, anatomy: Anatomy, heads: int) -> AttentionRecipe:
    if branch.heads == 0:
        return AttentionRecipe(heads=0)
    kept = heads if branch.heads is None else min(branch.heads, heads)
    limit = break_even_rank(kept * anatomy.head_size, anatomy.hidden_size)
    return branch.model_copy(
        update={
            "heads": None if kept == heads else kept,
            "rank": branch.rank if branch.rank is not None and branch.rank < limit else None,
        }
        | _zeros(branch)
    )


def _feed_forward(branch: FeedForwardRecipe, anatomy: Anatomy, width: int) -> FeedForwardRecipe:
    if branch.intermediate_size == 0:
        return FeedForwardRecipe(intermediate_size=0)
    kept = width if branch.intermediate_size is None else min(branch.intermediate_size, width)
    limit = break_even_rank(kept, anatomy.hidden_size)
    return branch.model_copy(
        update={
            "intermediate_size": None if kept == width else kept,
            "rank": branch.rank if branch.rank is not None and branch.rank < limit else None,
        }
        | _zeros(branch)
    )
