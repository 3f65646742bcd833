"""Prune in steps and heal in between: a family of models, each the start of the next.

ZipLM (arXiv 2302.04089) prunes to one target after the other and always from the current model, with statistics taken
anew; how much goes in each step follows :func:`compressors.recovery.ramp.ramp`.
"""

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass

from compressors.network import EncoderNetwork
from compressors.recipe import Recipe


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


def gradual(network: EncoderNetwork, recipes: list[Recipe], prune: Prune, heal: Heal) -> Iterator[Stage]:
    """Yield a healed network for each recipe, each made from the one before.

    Args:
        network: the dense model.
        recipes: from :func:`compressors.recovery.ramp.ramp`, or any list in which no branch ever grows.
        prune: cuts the current network; it should collect its statistics from the network that it is given.
        heal: recovers what was lost.
    """
    for number, recipe in enumerate(recipes, start=1):
        network = heal(prune(network, recipe), number)
        yield Stage(number, recipe, network)
