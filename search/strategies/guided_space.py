"""The space of ``guided``: not the layers' settings, but what the solver needs to choose them.

A point is a latency target, the shape of the unit weights and a few global choices; the solver turns it into a recipe.
"""

from collections.abc import Sequence
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
from search.options import Merge
from search.options import Precision
from search.solver import BUCKETS
from search.solver import BudgetTable
from search.solver import FloatArray
from search.solver import Unreachable
from search.solver import solve_within
from search.solver import total
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


class GuidedSpace:
    """Parameters of the solver, and the recipes that they lead to.

    Args:
        units: Units with their allowed options.
        space: The job's space.
        model: Latency model, fitted to what was measured.
        window: Slowest and fastest latency ratio that ``target`` stands for; by default all that is reachable.
        weights: ``[units]``, what is known about how much each unit's error counts; the shape parameters multiply it.
        merges: Merges of layers that may be combined with the solver's choice for the others.
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
    ) -> None:
        self.units = list(units)
        self.space = space
        self._model = model
        self._window = window
        self._weights = np.ones(len(self.units)) if weights is None else weights
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
        return GuidedSpace(self.units, self.space, self._model, window, weights, self._merges, self._most_bytes)

    def within(self, most_bytes: float | None) -> "GuidedSpace":
        """Return the same space with branches that together take at most so many stored bytes; itself without a limit.

        What it has computed so far is worth keeping: every turn of a job comes here.
        """
        if most_bytes == self._most_bytes:
            return self
        return GuidedSpace(self.units, self.space, self._model, self._window, self._weights, self._merges, most_bytes)

    def stored_bytes(self, choice: Sequence[int]) -> float:
        """Return the stored bytes of the chosen options: of all branches, but not of embeddings, norms and head."""
        return total([unit.size for unit in self.units], choice)

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
        errors = [unit.error if params.get("basis") == "error" else unit.divergence for unit in self.units]
        sharpness = float(cast("float", params["sharpness"]))
        attention, slope, bow = (float(cast("float", params[name])) for name in ("attention", "slope", "bow"))
        shape = WeightShape(attention=attention, slope=slope, bow=bow)
        weights = self._weights * unit_weights(shape, [unit.branch for unit in self.units], self.depths)
        costs = [weight * error**sharpness for weight, error in zip(weights, errors, strict=True)]
        masks = [format_mask(unit, str(params.get("format", "any"))) for unit in self.units]
        number = cast("int | None", params.get("merge"))
        merge = None if number is None else self._merges[number]
        if merge is not None:
            masks = [mask & merge_mask(unit, merge) for mask, unit in zip(masks, self.units, strict=True)]
        ratio = self.ratio_at(float(cast("float", params["target"])), precision)
        return self.recipe(self.solve(costs, ratio, precision, masks), precision, merge)

    def solve(
        self,
        costs: Sequence[FloatArray],
        ratio: float,
        precision: Precision,
        masks: Sequence[np.ndarray[tuple[int], np.dtype[np.bool_]]] | None = None,
    ) -> tuple[int, ...]:
        """Return the options of least cost within a latency ratio and the size limit.

        If the ratio is out of reach these are the fastest options, if the size is, the smallest.
        """
        times = self.times(precision)
        allowed = [np.flatnonzero(m) if m.any() else np.arange(len(m)) for m in masks] if masks else None
        if allowed is None:
            allowed = [np.arange(len(time)) for time in times]
        kept_times = [time[keep] for time, keep in zip(times, allowed, strict=True)]
        kept_costs = [cost[keep] for cost, keep in zip(costs, allowed, strict=True)]
        kept_sizes = [unit.size[keep] for unit, keep in zip(self.units, allowed, strict=True)]
        budget = max(ratio - self._model.fixed_time(precision), 1e-9)
        try:
            choice = solve_within(kept_times, kept_costs, kept_sizes, budget, self._most_bytes)
        except Unreachable as out_of_reach:
            least = kept_sizes if out_of_reach.what == "size" else kept_times
            choice = tuple(int(np.lexsort((cost, first))[0]) for first, cost in zip(least, kept_costs, strict=True))
        return tuple(int(keep[index]) for keep, index in zip(allowed, choice, strict=True))

    def fastest_within(self, costs: Sequence[FloatArray], most: float, precision: Precision) -> float:
        """Return the least latency ratio at which the best choice costs at most ``most``."""
        slowest, fastest = self.reach(precision)
        fixed = self._model.fixed_time(precision)
        table = BudgetTable(self.times(precision), costs, slowest - fixed, RANGE_BUCKETS)
        try:
            return max(fastest, fixed + table.smallest_budget(most))
        except Unreachable:
            return slowest

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
        """Return the predicted time of every option."""
        if precision not in self._times:
            classifier = self.space.anatomy.task == "sequence-classification"
            last = self.space.anatomy.layers - 1 if classifier and self.space.defaults.graph.first_token_head else -1
            self._times[precision] = [
                unit_times(unit, self._model, precision, first_token=unit.layer == last) for unit in self.units
            ]
        return self._times[precision]

    def ratio_at(self, target: float, precision: Precision) -> float:
        """Return the latency ratio at a position between the slowest (0) and the fastest (1) of the window."""
        slowest, fastest = self._window or self.reach(precision)
        return exp((1 - target) * log(slowest) + target * log(fastest))

    def reach(self, precision: Precision) -> tuple[float, float]:
        """Return the predicted ratios of the slowest and of the fastest model."""
        times, fixed = self.times(precision), self._model.fixed_time(precision)
        slowest = fixed + sum(float(time.max()) for time in times)
        return max(slowest, 1e-6), max(fixed + sum(float(time.min()) for time in times), 1e-6)

    @cached_property
    def depths(self) -> list[float]:
        """Position of each unit's layer, 0 to 1."""
        return [unit.layer / max(1, self.space.anatomy.layers - 1) for unit in self.units]
