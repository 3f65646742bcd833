"""What choices among a model's options cost: each branch has one option, and layers that lose both are gone as a whole.

A layer without its two branches is the identity, normalisations included, and what the model loses without it is
nothing that its branches' own divergences would tell. So it has a cost of its own, and a weight of its own.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from search.branches import UnitOptions
from search.branches import layer_drops
from search.solver import Block
from search.solver import Choice
from search.solver import FloatArray
from search.solver import Options
from search.solver import efficient_options
from search.solver import total_cost
from search.spdy import Part


class Costs(NamedTuple):
    """What choices cost.

    Attributes:
        options: Of each option of each unit.
        drops: Of each layer that may go, where it goes: in place of what its two options cost.
    """

    options: list[FloatArray]
    drops: FloatArray


class Menu:
    """Options of all units, and the layers that may go as a whole.

    Args:
        units: Units with their allowed options, in the order of the network.
        divergences: End-to-end divergence of the model without a layer, for each layer; empty if unknown.

    Attributes:
        units: The units.
        drops: Layers that may go.
        parts: What has a weight: the units, and behind them ``drops``.
        layers: Index of each part's layer.
    """

    def __init__(self, units: Sequence[UnitOptions], divergences: Sequence[float] = ()) -> None:
        self.units = list(units)
        self.drops = layer_drops(self.units, divergences)
        self.parts: list[Part] = [unit.branch for unit in self.units]
        self.parts += ["layer"] * len(self.drops)
        self.layers = [*(unit.layer for unit in self.units), *(drop.layer for drop in self.drops)]

    def costs(self, weights: FloatArray | None = None, sharpness: float = 1.0, *, local: bool = False) -> Costs:
        """Return what choices cost.

        Args:
            weights: ``[parts]``, how much the error of each part counts; ``None``: all alike.
            sharpness: Exponent on the errors.
            local: Take the errors of the branches' own outputs, not the end-to-end divergences.
        """
        factors = np.ones(len(self.parts)) if weights is None else weights
        errors = [unit.error if local else unit.divergence for unit in self.units]
        options = [factor * error**sharpness for factor, error in zip(factors[: len(errors)], errors, strict=True)]
        gone = np.array([drop.error if local else drop.divergence for drop in self.drops])
        return Costs(options, factors[len(errors) :] * gone**sharpness)

    def cost(self, costs: Costs, choice: Sequence[int]) -> float:
        """Return what a choice costs."""
        return total_cost(costs.options, choice, self.blocks(costs))

    def errors(self, choice: Sequence[int]) -> FloatArray:
        """Return the divergence of every part of a choice, ``[parts]``; units of a layer that is gone have none."""
        errors = np.zeros(len(self.parts))
        for number, (unit, option) in enumerate(zip(self.units, choice, strict=True)):
            errors[number] = unit.divergence[option]
        for number, block in enumerate(self._unweighted):
            if block.is_gone(choice):
                errors[block.first : block.first + 2] = 0.0
                errors[len(self.units) + number] = block.cost
        return errors

    def blocks(self, costs: Costs, layer_time: float = 0.0) -> list[Block]:
        """Return the layers that may go, as the solver knows them.

        Args:
            costs: What they cost.
            layer_time: What their going saves beyond their branches.
        """
        return [
            Block(drop.first, drop.removed, float(cost), layer_time)
            for drop, cost in zip(self.drops, costs.drops, strict=True)
        ]

    def levels(self, times: Sequence[FloatArray], costs: Costs) -> list[Options]:
        """Return the options of each unit that are not both slower and dearer than another, slowest first.

        A removed branch is always the last one, where its layer may go.
        """
        kept = [efficient_options(time, cost) for time, cost in zip(times, costs.options, strict=True)]
        for drop in self.drops:
            for unit, option in enumerate(drop.removed, drop.first):
                kept[unit] = np.append(kept[unit][kept[unit] != option], option)
        return kept

    @cached_property
    def largest(self) -> FloatArray:
        """Return the largest divergence that an option of each part has, ``[parts]``."""
        return np.array([*(unit.divergence.max() for unit in self.units), *(drop.divergence for drop in self.drops)])

    @cached_property
    def _unweighted(self) -> list[Block]:
        return self.blocks(self.costs())


def among(blocks: Sequence[Block], allowed: Sequence[Options]) -> list[Block]:
    """Return blocks in the numbers of some options of each unit; those that may not go with these are left out."""
    found = []
    for block in blocks:
        places = [np.flatnonzero(allowed[block.first + side] == block.removed[side]) for side in (0, 1)]
        if all(place.size for place in places):
            found.append(Block(block.first, (int(places[0][0]), int(places[1][0])), block.cost, block.saved))
    return found


def nearest_levels(choice: Choice, levels: Sequence[Options], times: Sequence[FloatArray]) -> list[int]:
    """Return the place of each unit's option among ``levels``; of one that is not there, that of the nearest time."""
    found = []
    for option, kept, time in zip(choice, levels, times, strict=True):
        same = np.flatnonzero(kept == option)
        found.append(int(same[0] if same.size else np.argmin(np.abs(time[kept] - time[option]))))
    return found
