"""Prune in steps and heal in between: a family of models, each the start of the next.

ZipLM (arXiv 2302.04089) prunes to one target after the other and always from the current model, with statistics taken
anew; how much goes in each step follows the cubic ramp of Zhu and Gupta (arXiv 1710.01878): much at first, while the
model has capacity to spare, and little at the end.
"""

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass

from compressors.description import Anatomy
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError


@dataclass(frozen=True)
class Stage:
    """One member of the family."""

    number: int
    """From 1."""
    recipe: Recipe
    """Its structure, relative to the dense model."""
    network: EncoderNetwork
    """After healing."""


Prune = Callable[[EncoderNetwork, Recipe], EncoderNetwork]
"""Takes the current network, statistics of which it collects anew, and cuts it to a recipe with as many layers."""

Heal = Callable[[EncoderNetwork, int], EncoderNetwork]
"""Trains a network; the second argument is the number of the stage."""


def cubic_fraction(step: int, steps: int) -> float:
    """Return the part of all removals that is done after ``step`` of ``steps`` steps: ``1 - (1 - step/steps)^3``."""
    return 1.0 - (1.0 - step / steps) ** 3


def ramp(dense: Anatomy, target: Recipe, steps: int, *, granularity: int = 32) -> list[Recipe]:
    """Return the recipes on the way from the dense model to ``target``; the last one is ``target``.

    Args:
        dense: of the dense model.
        target: heads and widths to end with. Whatever else it asks for belongs to the last step only.
        steps: how many, at least 1.
        granularity: widths in between are multiples of this.

    Raises:
        InvalidInputError: the target removes whole layers or branches. What is gone cannot be removed step by step;
            use the network without them as the dense model.
    """
    _check(dense, target)
    plain = target.model_copy(update={"weights": None})
    recipes = []
    for step in range(1, steps):
        done = cubic_fraction(step, steps)
        layers = tuple(
            LayerRecipe(
                attention=AttentionRecipe(heads=_between(dense.heads[index], layer.attention.heads, done, 1)),
                feed_forward=FeedForwardRecipe(
                    intermediate_size=_between(
                        dense.intermediate_size[index], layer.feed_forward.intermediate_size, done, granularity
                    )
                ),
            )
            for index, layer in enumerate(target.layers)
        )
        recipes.append(plain.model_copy(update={"layers": layers}))
    return [*recipes, plain]


def gradual(network: EncoderNetwork, recipes: list[Recipe], prune: Prune, heal: Heal) -> Iterator[Stage]:
    """Yield a healed network for each recipe, each made from the one before.

    Args:
        network: the dense model.
        recipes: from :func:`ramp`, or any list in which no branch ever grows.
        prune: cuts the current network; it should collect its statistics from the network that it is given.
        heal: recovers what was lost.
    """
    for number, recipe in enumerate(recipes, start=1):
        network = heal(prune(network, recipe), number)
        yield Stage(number, recipe, network)


def _check(dense: Anatomy, target: Recipe) -> None:
    for layer in target.layers:
        if layer.removed or layer.attention.heads == 0 or layer.feed_forward.intermediate_size == 0:
            raise InvalidInputError(
                "Gradual pruning cannot remove whole layers or branches.",
                hint="Remove them first and start the gradual pruning from the result.",
            )
    if len(target.layers) != dense.layers:
        raise InvalidInputError(
            f"The target describes {len(target.layers)} layers, the model has {dense.layers}.",
            hint="Give one entry for each layer.",
        )


def _between(dense: int, target: int | None, done: float, granularity: int) -> int:
    """Return a size on the way from ``dense`` to ``target``, rounded up to the granularity but not past ``dense``."""
    end = dense if target is None else target
    exact = dense - (dense - end) * done
    rounded = -int(-exact // granularity) * granularity
    return max(end, min(dense, rounded))
