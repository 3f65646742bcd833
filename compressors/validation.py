"""Does a recipe fit a model? Light: no torch."""

from compressors.description import Anatomy
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError


def is_dropped(layer: LayerRecipe) -> bool:
    """Whether the whole layer goes, normalisations included: asked for, or because both branches go."""
    return layer.removed or (layer.attention.heads == 0 and layer.feed_forward.intermediate_size == 0)


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
    if recipe.pattern == "2:4":
        errors += _pattern_errors(recipe)
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
    return [
        {"field": f"layers.{index}.{name}", "message": f"{value} is more than {limit}"}
        for name, value, limit in limits
        if value is not None and value > limit
    ]


def _pattern_errors(recipe: Recipe) -> list[dict[str, str]]:
    return [
        {"field": f"layers.{index}.{name}.sparsity", "message": "the pattern 2:4 means a sparsity of 0.5"}
        for index, layer in enumerate(recipe.layers)
        for name, branch in (("attention", layer.attention), ("feed_forward", layer.feed_forward))
        if branch.sparsity not in (0.0, 0.5)
    ]
