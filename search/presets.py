"""Recipes that are always tried first: the dense model in the best graph, and uniform budgets."""

from collections.abc import Sequence
from dataclasses import dataclass

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from search.requests import Space
from search.space import SearchSpace
from search.space import width_levels

FRACTIONS = (1.0, 0.75, 0.5, 0.33, 0.25)


@dataclass(frozen=True)
class Preset:
    """A named recipe."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Format:
    """A number format: weight bits, and the arithmetic of what stays floating point."""

    name: str
    bits: int
    precision: str


def presets(space: SearchSpace, request: Space, fractions: tuple[float, ...] = FRACTIONS) -> list[Preset]:
    """Return the presets in the order in which they should be tried; no two have the same digest.

    The dense model comes first in every number format, then the uniform fractions of heads and channels from the
    mildest to the strongest, within a fraction the likely winners first.

    Args:
        space: The job's space.
        request: Steps of the widths.
        fractions: Uniform fractions of heads and channels; 1.0 is the dense model.
    """
    known = formats(space)
    if not {"heads", "ffn"} & set(space.kinds):
        fractions = (1.0,)
    found: dict[str, Preset] = {}
    for fraction in fractions:
        for number_format in known if fraction == 1.0 else likely_winners(known):
            recipe = space.canonical(uniform(space, request, fraction, number_format.bits, number_format.precision))
            name = "dense" if fraction == 1.0 else f"uniform {fraction:.0%}"
            found.setdefault(recipe.digest, Preset(f"{name} {number_format.name}", recipe))
    return list(found.values())


def uniform(space: SearchSpace, request: Space, fraction: float, bits: int, precision: str) -> Recipe:
    """Return the recipe that keeps ``fraction`` of the heads and channels of every layer, rounded to allowed widths."""
    anatomy = space.anatomy
    layers = []
    for heads, width in zip(anatomy.heads, anatomy.intermediate_size, strict=True):
        kept_heads = _nearest(heads, fraction, request.head_step) if "heads" in space.kinds else heads
        kept_width = _nearest(width, fraction, request.ffn_step) if "ffn" in space.kinds else width
        layers.append(
            LayerRecipe(
                attention=AttentionRecipe.model_validate({"heads": kept_heads, "bits": bits}),
                feed_forward=FeedForwardRecipe.model_validate({"intermediate_size": kept_width, "bits": bits}),
            )
        )
    return space.dense_recipe().model_copy(update={"layers": tuple(layers), "precision": precision})


def _nearest(full: int, fraction: float, step: int) -> int:
    return min(width_levels(full, step, may_remove=False), key=lambda level: (abs(level - fraction * full), level))


def likely_winners(formats: Sequence[Format]) -> list[Format]:
    """Fewest bits first; plain f32 only where the device has no faster floating point."""
    return [entry for entry in reversed(formats) if entry.name != "f32" or len(formats) <= 2]


def formats(space: SearchSpace) -> list[Format]:
    """Return the number formats of the space, the most exact first."""
    found = [Format(precision, 32, precision) for precision in sorted(space.precisions, reverse=True)]
    if space.formats:
        first = space.formats[0]
        found.append(Format(first.name, first.bits, space.defaults.precision))
    return found
