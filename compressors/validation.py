"""Does a recipe fit a model? Light: no torch."""

from collections.abc import Sequence

from compressors.description import Anatomy
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError


def is_dropped(layer: LayerRecipe) -> bool:
    """Whether the whole layer goes, normalisations included: asked for, or because both branches go."""
    return layer.removed or (layer.attention.heads == 0 and layer.feed_forward.intermediate_size == 0)


def has_lost_merge(layers: Sequence[LayerRecipe], index: int) -> bool:
    """Whether a layer is to take in others that are not there, or that are not removed."""
    merged = layers[index].merged
    followers = layers[index + 1 : index + 1 + merged]
    return len(followers) < merged or not all(other.removed for other in followers)


def validate_recipe(recipe: Recipe, anatomy: Anatomy) -> None:
    """Check a recipe against the dense model.

    Raises:
        InvalidInputError: with one entry in ``errors`` for every field that does not fit.
    """
    if len(recipe.layers) != anatomy.layers:
        raise InvalidInputError(
            f"The recipe describes {len(recipe.layers)} layers, the model has {anatomy.layers}.",
            hint="Give one entry for each layer of the dense model.",
        )
    errors = [error for index, layer in enumerate(recipe.layers) for error in _layer_errors(index, layer, anatomy)]
    errors += _merge_errors(recipe, anatomy)
    if all(is_dropped(layer) for layer in recipe.layers):
        errors.append({"field": "layers", "message": "at least one layer must stay"})
    if errors:
        raise InvalidInputError(
            f"The recipe does not fit the model: {errors[0]['field']}: {errors[0]['message']}.",
            hint="Stay within the sizes of the dense model.",
            errors=errors,
        )


def _layer_errors(index: int, layer: LayerRecipe, anatomy: Anatomy) -> list[dict[str, str]]:
    attention, feed_forward = layer.attention, layer.feed_forward
    limits = (
        ("attention.heads", attention.heads, anatomy.heads[index]),
        ("attention.rank", attention.rank, anatomy.hidden_size),
        ("feed_forward.intermediate_size", feed_forward.intermediate_size, anatomy.intermediate_size[index]),
        ("feed_forward.rank", feed_forward.rank, anatomy.hidden_size),
    )
    errors = [
        {"field": f"layers.{index}.{name}", "message": f"{value} is more than {limit}"}
        for name, value, limit in limits
        if value is not None and value > limit
    ]
    for name, branch in (("attention", attention), ("feed_forward", feed_forward)):
        if branch.pattern == "2:4" and branch.sparsity not in (0.0, 0.5):
            message = "the pattern 2:4 means a sparsity of 0.5"
            errors.append({"field": f"layers.{index}.{name}.sparsity", "message": message})
    return errors


def _merge_errors(recipe: Recipe, anatomy: Anatomy) -> list[dict[str, str]]:
    errors = []
    for index, layer in enumerate(recipe.layers):
        if has_lost_merge(recipe.layers, index):
            message = f"the {layer.merged} layers after it must be there and be removed"
            errors.append({"field": f"layers.{index}.merged", "message": message})
        elif layer.merged and not _is_whole(layer, anatomy.heads[index], anatomy.intermediate_size[index]):
            message = (
                "a layer that others are merged into keeps all heads and channels, and is not factorised or masked"
            )
            errors.append({"field": f"layers.{index}.merged", "message": message})
        elif layer.merged and not _is_uniform(anatomy, index, layer.merged):
            message = "the layers are not of the same size"
            errors.append({"field": f"layers.{index}.merged", "message": message})
    return errors


def _is_whole(layer: LayerRecipe, heads: int, width: int) -> bool:
    branches = (layer.attention, layer.feed_forward)
    return (
        not layer.removed
        and layer.attention.heads in (None, heads)
        and layer.feed_forward.intermediate_size in (None, width)
        and all(branch.rank is None and branch.sparsity == 0 for branch in branches)
    )


def _is_uniform(anatomy: Anatomy, index: int, merged: int) -> bool:
    group = slice(index, index + merged + 1)
    return len(set(anatomy.heads[group])) == 1 and len(set(anatomy.intermediate_size[group])) == 1
