"""The space of ``guided``: not the layers' settings, but what the solver needs to choose them.

A point is a latency target, the shape of the unit weights and a few global choices; the solver turns it into a recipe.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import exp
from math import log
from math import prod
from typing import cast

import numpy as np

from compressors.recipe import Recipe
from search.branches import Locator
from search.branches import UnitOptions
from search.branches import assemble
from search.branches import format_mask
from search.branches import merge_mask
from search.branches import unit_times
from search.latency_model import LatencyModel
from search.menu import Costs
from search.menu import Menu
from search.menu import among
from search.menu import nearest_levels
from search.options import Merge
from search.options import Precision
from search.refine import offspring
from search.solver import BUCKETS
from search.solver import Block
from search.solver import BudgetTable
from search.solver import Choice
from search.solver import FloatArray
from search.solver import Unreachable
from search.solver import least_choice
from search.solver import solve_within
from search.solver import total
from search.solver import total_time
from search.space import Parameter
from search.space import Params
from search.space import SearchSpace
from search.spdy import WeightShape
from search.spdy import unit_weights

TARGETS = tuple(round(step / 40, 3) for step in range(41))
"""Position between the slowest (0) and the fastest (1) model of the window, on a logarithmic scale."""
LOGARITHMS = (-1.0, -0.6, -0.3, 0.0, 0.3, 0.6, 1.0)
RANGE_BUCKETS = 4 * BUCKETS
"""For the whole range of times in one table, of which fast models take a small part."""
SHARPNESS = (0.7, 0.85, 1.0, 1.2, 1.4)
"""Exponent on the errors: above 1 many small errors are preferred to one large."""
MERGES_TRIED = 4
"""Merges of least divergence that compete in every solution: each is solved for."""


class GuidedSpace:
    """Parameters of the solver, and the recipes that they lead to.

    Args:
        units: Units with their allowed options.
        space: The job's space.
        model: Latency model, fitted to what was measured.
        window: Slowest and fastest latency ratio that ``target`` stands for; by default all that is reachable.
        weights: ``[parts]``, what is known about how much the error of each unit, and of each layer that goes, counts;
            the shape parameters multiply it.
        merges: Merges of layers that may be combined with the solver's choice for the others.
        most_bytes: Limit of the stored bytes of all branches together.
        drops: End-to-end divergence of the model without a layer, for each layer; empty if unknown.

    Attributes:
        menu: Units, and layers that may go as a whole.
        space: The job's space.
    """

    def __init__(
        self,
        units: Sequence[UnitOptions],
        space: SearchSpace,
        model: LatencyModel,
        window: tuple[float, float] | None = None,
        weights: FloatArray | None = None,
        merges: Sequence[Merge] = (),
        most_bytes: float | None = None,
        drops: Sequence[float] = (),
    ) -> None:
        self.menu = Menu(units, drops)
        self.space = space
        self._drops = tuple(drops)
        self._model = model
        self._window = window
        self._weights = np.ones(len(self.menu.parts)) if weights is None else weights
        self._merges = tuple(merges)
        self._most_bytes = most_bytes
        self._times: dict[str, list[FloatArray]] = {}

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The dimensions."""
        parameters = [
            Parameter("target", TARGETS),
            Parameter("attention", LOGARITHMS),
            Parameter("slope", LOGARITHMS),
            Parameter("bow", LOGARITHMS),
            Parameter("sharpness", SHARPNESS),
        ]
        if len({bits < 16 for bits in self.bits}) > 1:
            parameters.append(Parameter("format", ("any", "int8", "float"), ordered=False))
        if len(self.space.precisions) > 1:
            parameters.append(Parameter("precision", self.space.precisions, ordered=False))
        if self.has_divergences:
            parameters.append(Parameter("basis", ("divergence", "error"), ordered=False))
        if self._merges:
            parameters.append(Parameter("merge", (None, *range(len(self._merges))), ordered=False))
        return tuple(parameters)

    @cached_property
    def bits(self) -> frozenset[int]:
        """Bit-widths of the units' options."""
        return frozenset(option.recipe.bits for unit in self.units for option in unit.options)

    @cached_property
    def has_divergences(self) -> bool:
        """Whether what options do to the outputs was evaluated, and not only their local error."""
        return any(option.divergence is not None for unit in self.units for option in unit.options)

    @property
    def size(self) -> float:
        """Number of parameter combinations."""
        return prod(float(len(parameter.levels)) for parameter in self.parameters)

    def focus(self, window: tuple[float, float], weights: FloatArray) -> "GuidedSpace":
        """Return the same space with targets between two latency ratios, and weights to start from."""
        return self._changed(window, weights, self._most_bytes)

    def within(self, most_bytes: float | None) -> "GuidedSpace":
        """Return the same space with branches that together take at most so many stored bytes; itself without a limit.

        What it has computed so far is worth keeping: every turn of a job comes here.
        """
        if most_bytes == self._most_bytes:
            return self
        return self._changed(self._window, self._weights, most_bytes)

    def _changed(
        self, window: tuple[float, float] | None, weights: FloatArray, most_bytes: float | None
    ) -> "GuidedSpace":
        units, merges, drops = self.menu.units, self._merges, self._drops
        return GuidedSpace(units, self.space, self._model, window, weights, merges, most_bytes, drops)

    @property
    def units(self) -> list[UnitOptions]:
        """Units with their allowed options."""
        return self.menu.units

    def stored_bytes(self, choice: Sequence[int]) -> float:
        """Return the stored bytes of the chosen options: of all branches, but not of embeddings, norms and head."""
        return total(self.sizes, choice)

    @property
    def most_bytes(self) -> float | None:
        """How many stored bytes the branches may take together; ``None``: any number."""
        return self._most_bytes

    @cached_property
    def sizes(self) -> list[FloatArray]:
        """Stored bytes of every option."""
        return [unit.size for unit in self.units]

    @cached_property
    def smallest_bytes(self) -> float:
        """The least stored bytes of all branches together."""
        blocks = self.menu.blocks(self.menu.costs())
        return total(self.sizes, least_choice(self.sizes, self.sizes, blocks, self._least_kept(blocks)))

    def least_bytes(self, ratio: float, precision: Precision) -> float | None:
        """Return the least stored bytes of branches within a latency ratio; ``None``: nothing is that fast."""
        blocks = self._blocks(self.menu.costs(), precision)
        blocks = [replace(block, cost=block.sum(self.sizes)) for block in blocks]
        budget, kept = max(self.budget(ratio, precision), 1e-9), self._least_kept(blocks)
        try:
            found = solve_within(
                self.times(precision), self.sizes, self.sizes, budget, None, blocks=blocks, least_kept=kept
            )
        except Unreachable:
            return None
        return total(self.sizes, found)

    def fits(self, choice: Sequence[int]) -> bool:
        """Whether the chosen options are small enough."""
        return self._most_bytes is None or self.stored_bytes(choice) <= self._most_bytes

    def defaults(self, target: float) -> Params:
        """Return the parameters of a target with all errors at face value."""
        neutral: Params = {
            "target": min(TARGETS, key=lambda level: abs(level - target)),
            "attention": 0.0,
            "slope": 0.0,
            "bow": 0.0,
            "sharpness": 1.0,
            "format": "any",
            "precision": self.space.defaults.precision,
            "basis": "divergence",
            "merge": None,
        }
        return {parameter.name: neutral[parameter.name] for parameter in self.parameters}

    def to_recipe(self, params: Params) -> Recipe:
        """Solve, and return the canonical recipe."""
        precision = cast("Precision", params.get("precision", self.space.defaults.precision))
        sharpness = float(cast("float", params["sharpness"]))
        attention, slope, bow = (float(cast("float", params[name])) for name in ("attention", "slope", "bow"))
        shape = WeightShape(attention=attention, slope=slope, bow=bow)
        weights = self._weights * unit_weights(shape, self.menu.parts, self.depths)
        costs = self.menu.costs(weights, sharpness, local=params.get("basis") == "error")
        masks = [format_mask(unit, str(params.get("format", "any"))) for unit in self.units]
        number = cast("int | None", params.get("merge"))
        merge = None if number is None else self._merges[number]
        if merge is not None:
            masks = [mask & merge_mask(unit, merge) for mask, unit in zip(masks, self.units, strict=True)]
        ratio = self.ratio_at(float(cast("float", params["target"])), precision)
        return self.recipe(self.solve(costs, ratio, precision, masks), precision, merge)

    def solve(
        self,
        costs: Costs,
        ratio: float,
        precision: Precision,
        masks: Sequence[np.ndarray[tuple[int], np.dtype[np.bool_]]] | None = None,
    ) -> Choice:
        """Return the options of least cost within a latency ratio and the size limit.

        If the ratio is out of reach these are the fastest options, if the size is, the smallest. Where that is so of
        the goal, the job is told (:func:`search.strategies.reachable.doubts`).
        """
        times = self.times(precision)
        allowed = [np.flatnonzero(m) if m.any() else np.arange(len(m)) for m in masks] if masks else None
        if allowed is None:
            allowed = [np.arange(len(time)) for time in times]
        kept_times = [time[keep] for time, keep in zip(times, allowed, strict=True)]
        kept_costs = [cost[keep] for cost, keep in zip(costs.options, allowed, strict=True)]
        kept_sizes = [size[keep] for size, keep in zip(self.sizes, allowed, strict=True)]
        budget, blocks = max(self.budget(ratio, precision), 1e-9), among(self._blocks(costs, precision), allowed)
        least = self._least_kept(blocks)
        try:
            choice = solve_within(
                kept_times, kept_costs, kept_sizes, budget, self._most_bytes, blocks=blocks, least_kept=least
            )
        except Unreachable as out_of_reach:
            if out_of_reach.what == "size":
                choice = least_choice(kept_sizes, kept_costs, [replace(block, saved=0.0) for block in blocks], least)
            else:
                choice = least_choice(kept_times, kept_costs, blocks, least)
        return tuple(int(keep[index]) for keep, index in zip(allowed, choice, strict=True))

    def solve_merged(self, costs: Costs, ratio: float, precision: Precision) -> Recipe:
        """Return the canonical recipe of least cost within a latency ratio, two of its layers merged if that is least.

        A merge costs its own divergence, in place of that of the layers that go into another.
        """
        choice = self.solve(costs, ratio, precision)
        found: list[tuple[float, Choice, Merge | None]] = [(self.menu.cost(costs, choice), choice, None)]
        for merge in sorted(self._merges, key=lambda merge: merge.divergence)[:MERGES_TRIED]:
            masks = [merge_mask(unit, merge) for unit in self.units]
            choice = self.solve(costs, ratio, precision, masks)
            if self.time(choice, precision) <= self.budget(ratio, precision) and self.fits(choice):
                more = self._more_than_dropped(merge, costs)
                found.append((self.menu.cost(costs, choice) + more, choice, merge))
        _, choice, best = min(found, key=lambda entry: entry[0])
        return self.recipe(choice, precision, best)

    def _more_than_dropped(self, merge: Merge, costs: Costs) -> float:
        """Return by how much a choice with a merge costs more than if the layers that go were dropped."""
        gone = [
            (drop.divergence, float(cost))
            for drop, cost in zip(self.menu.drops, costs.drops, strict=True)
            if merge.layer < drop.layer <= merge.layer + merge.merged
        ]
        divergence, cost = (sum(column) for column in zip(*gone, strict=True))
        return cost * (merge.divergence / divergence - 1.0) if divergence > 0 else merge.divergence

    def neighbours(
        self,
        choice: Choice,
        costs: Costs,
        precision: Precision,
        count: int,
        generator: np.random.Generator,
        *,
        ratio: float | None = None,
        share: float = 1.0,
    ) -> list[Choice]:
        """Return choices that differ from one in a few units, small enough and within a time, by chance.

        Args:
            choice: Where to begin.
            costs: Options that are both slower and dearer than others are not taken.
            precision: Arithmetic that the times are those of.
            count: How many, at most.
            generator: Source of randomness.
            ratio: Latency ratio to keep within; ``None``: ``share`` of the choice's own time.
            share: See ``ratio``.
        """
        times = self.times(precision)
        kept = self.menu.levels(times, costs)
        start = nearest_levels(choice, kept, times)
        blocks = among(self._blocks(costs, precision), kept)
        kept_times = [time[keep] for time, keep in zip(times, kept, strict=True)]
        budget = self.budget(ratio, precision) if ratio is not None else share * total_time(kept_times, start, blocks)
        moves = offspring(start, kept_times, budget, count, generator, blocks, self._least_kept(blocks))
        found = [tuple(int(keep[level]) for keep, level in zip(kept, levels, strict=True)) for levels in moves]
        return [entry for entry in found if self.fits(entry)]

    def fastest_within(self, costs: Costs, most: float, precision: Precision) -> float:
        """Return the least latency ratio at which the best choice costs at most ``most``."""
        slowest, fastest = self.reach(precision)
        blocks = self._blocks(costs, precision)
        table = BudgetTable(
            self.times(precision), costs.options, self.budget(slowest, precision), RANGE_BUCKETS, blocks
        )
        try:
            return max(fastest, self._fixed_time(precision) + table.smallest_budget(most))
        except Unreachable:
            return slowest

    def time(self, choice: Sequence[int], precision: Precision) -> float:
        """Return the predicted time of a choice, which is within a ratio if it is at most its :meth:`budget`."""
        return total_time(self.times(precision), choice, self._blocks(self.menu.costs(), precision))

    def budget(self, ratio: float, precision: Precision) -> float:
        """Return how much time the units have within a latency ratio."""
        return ratio - self._fixed_time(precision)

    def _fixed_time(self, precision: Precision) -> float:
        """Time of what is there whatever is chosen."""
        return self._model.fixed_time(precision) - len(self.menu.drops) * self._model.layer_time(precision)

    def _blocks(self, costs: Costs, precision: Precision) -> list[Block]:
        return self.menu.blocks(costs, self._model.layer_time(precision))

    def _least_kept(self, blocks: Sequence[Block]) -> int:
        """Return how many of the layers that may go have to stay."""
        return max(0, self.space.min_layers - (self.space.anatomy.layers - len(blocks)))

    def recipe(self, choice: Sequence[int], precision: Precision, merge: Merge | None = None) -> Recipe:
        """Return the canonical recipe of chosen options."""
        dense = self.space.dense_recipe().model_copy(update={"precision": precision})
        return self.space.canonical(assemble(self.units, choice, dense, merge))

    def locate(self, recipe: Recipe) -> tuple[int, ...] | None:
        """Return the options that a recipe uses, or ``None`` if one is not in the database."""
        return self._locator.locate(recipe)

    @cached_property
    def _locator(self) -> Locator:
        return Locator(self.units, self.space.anatomy)

    def times(self, precision: Precision) -> list[FloatArray]:
        """Return the predicted time of every option.

        Where a layer may go, its normalisations' time is in that of every option of its attention.
        """
        if precision not in self._times:
            classifier = self.space.anatomy.task == "sequence-classification"
            last = self.space.anatomy.layers - 1 if classifier and self.space.defaults.graph.first_token_head else -1
            times = [unit_times(unit, self._model, precision, first_token=unit.layer == last) for unit in self.units]
            for drop in self.menu.drops:
                times[drop.first] = times[drop.first] + self._model.layer_time(precision)
            self._times[precision] = times
        return self._times[precision]

    def ratio_at(self, target: float, precision: Precision) -> float:
        """Return the latency ratio at a position between the slowest (0) and the fastest (1) of the window."""
        slowest, fastest = self._window or self.reach(precision)
        return exp((1 - target) * log(slowest) + target * log(fastest))

    def reach(self, precision: Precision) -> tuple[float, float]:
        """Return the predicted ratios of the slowest and of the fastest model."""
        times, costs = self.times(precision), self.menu.costs()
        blocks = self._blocks(costs, precision)
        least = least_choice(times, costs.options, blocks, self._least_kept(blocks))
        fixed, slowest = self._fixed_time(precision), sum(float(time.max()) for time in times)
        return max(fixed + slowest, 1e-6), max(fixed + total_time(times, least, blocks), 1e-6)

    @cached_property
    def depths(self) -> list[float]:
        """Position of the layer of each unit, and of each layer that may go, 0 to 1."""
        return [layer / max(1, self.space.anatomy.layers - 1) for layer in self.menu.layers]
