"""Time of one branch before any candidate was measured: from the device's table, or from counting operations."""

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from profilers.types import Workload
from search.options import BranchTable
from search.options import Precision
from search.options import latency_key
from search.remembered import Remembered
from search.remembered import context_key

_times: Remembered[float] = Remembered(20_000)


class BranchCosts(Protocol):
    """Where times of branches come from; all times are fractions of the dense reference's time."""

    def fixed(self, precision: Precision) -> float:
        """Return the time of a model without branches."""
        ...

    def layer(self, precision: Precision) -> float:
        """Return the part of :meth:`fixed` that removing one whole layer saves."""
        ...

    @property
    def measured(self) -> bool:
        """Whether the device was asked."""
        ...

    @property
    def standard_error(self) -> float:
        """Relative standard error of the measured times; 0 if unknown."""
        ...

    @property
    def model_error(self) -> float:
        """The same of whole models' times, as long as none was measured: they are more than the sum of branches."""
        ...

    @property
    def key(self) -> str:
        """Equal keys mean equal times."""
        ...

    def branch(self, recipe: BranchRecipe, layer: int, precision: Precision, *, first_token: bool) -> float:
        """Return the time of one branch."""
        ...


@dataclass(frozen=True)
class TableCosts:
    """Times from a measured :class:`BranchTable`; widths that were not measured are interpolated.

    A low-rank branch that was not measured costs what its share of the multiplications costs at full rank, times what
    the measured ranks cost beyond theirs; formats that were not measured cost what 32-bit floating point costs. An
    arithmetic that was not measured has the fixed times of fp32.
    :class:`search.latency_model.LatencyModel` corrects this from the candidates that are measured later.
    """

    table: BranchTable
    anatomy: Anatomy
    measured: bool = True

    @cached_property
    def key(self) -> str:
        """See :class:`BranchCosts`."""
        return context_key(self.table, self.anatomy)

    def fixed(self, precision: Precision) -> float:
        """See :class:`BranchCosts`."""
        return _in_arithmetic(self.table.fixed, precision)

    def layer(self, precision: Precision) -> float:
        """See :class:`BranchCosts`."""
        return _in_arithmetic(self.table.layer, precision)

    @property
    def standard_error(self) -> float:
        """See :class:`BranchCosts`; the table has the half-width of a 95 % interval, two of them."""
        return self.table.relative_error / 2

    @property
    def model_error(self) -> float:
        """See :class:`BranchCosts`; what the table's checks were off by counts as two of them, too."""
        return self.table.prediction_error / 2

    def branch(self, recipe: BranchRecipe, layer: int, precision: Precision, *, first_token: bool) -> float:
        """See :class:`BranchCosts`."""
        full = _full_width(self.anatomy, recipe, layer)
        width = _width(recipe, full)
        if width == 0:
            return 0.0
        name = f"{type(recipe).__name__}:{layer}:{width}:{recipe.rank}:{recipe.bits}:{precision}:{first_token}"
        return _times.get(self.key, name, lambda: self._look_up(recipe, layer, precision, first_token=first_token))

    def _look_up(self, recipe: BranchRecipe, layer: int, precision: Precision, *, first_token: bool) -> float:
        full = _full_width(self.anatomy, recipe, layer)
        width = _width(recipe, full)
        curves = _curves(self.table)
        for position in (first_token, False):
            for bits, arithmetic in ((recipe.bits, precision), (recipe.bits, "f32"), (32, precision), (32, "f32")):
                variant = recipe.model_copy(update={"bits": bits})
                family, _, rank, *number_format = latency_key(
                    variant, full=full, precision=arithmetic, first_token=position
                ).split(":")
                exact = curves.get((family, rank, *number_format))
                if exact:
                    return _interpolate(exact, width)
                dense = curves.get((family, "rank=0", *number_format))
                if dense:
                    time = _interpolate(dense, width)
                    if recipe.rank is None:
                        return time
                    share = _rank_share(recipe, self.anatomy, layer)
                    return time * share * self._low_rank_overhead(recipe, layer, number_format)
        raise LookupError(f"the latency table has no {type(recipe).__name__} entries")

    def _low_rank_overhead(self, recipe: BranchRecipe, layer: int, number_format: Sequence[str]) -> float:
        """Return how much longer two thin products take than their share of the multiplications; 1 if nobody knows.

        Measured ranks in the same number format say it best; else those in any.
        """
        curves = _curves(self.table)
        kind = "attention" if isinstance(recipe, AttentionRecipe) else "feed_forward"
        found: dict[tuple[str, ...], list[float]] = {}
        for (family, rank, *measured_format), (widths, times) in curves.items():
            dense = curves.get((family, "rank=0", *measured_format))
            number = int(rank.removeprefix("rank="))
            if family != kind or number == 0 or dense is None:
                continue
            field = "heads" if kind == "attention" else "intermediate_size"
            share = _rank_share(recipe.model_copy(update={"rank": number, field: widths[-1]}), self.anatomy, layer)
            expected = share * _interpolate(dense, widths[-1])
            if expected > 0:
                found.setdefault(tuple(measured_format), []).append(times[-1] / expected)
        factors = found.get(tuple(number_format)) or [factor for some in found.values() for factor in some]
        return sum(factors) / len(factors) if factors else 1.0


@dataclass(frozen=True)
class CountedCosts:
    """Times in proportion to multiplications: good enough to order candidates until some have been measured."""

    anatomy: Anatomy
    workload: Workload
    share: float = 0.15
    """Of what is no branch."""
    measured: bool = False
    standard_error: float = 0.0
    model_error: float = 0.0

    @cached_property
    def key(self) -> str:
        """See :class:`BranchCosts`."""
        return context_key(self.anatomy, self.workload)

    def fixed(self, precision: Precision) -> float:
        """See :class:`BranchCosts`."""
        return self.share

    def layer(self, precision: Precision) -> float:
        """See :class:`BranchCosts`; the norms are not counted."""
        return 0.0

    def branch(self, recipe: BranchRecipe, layer: int, precision: Precision, *, first_token: bool) -> float:
        """See :class:`BranchCosts`."""
        share = 1.0 / self.workload.sequence_length if first_token and isinstance(recipe, FeedForwardRecipe) else 1.0
        total = sum(
            _operations(AttentionRecipe(), self.anatomy, index, self.workload)
            + _operations(FeedForwardRecipe(), self.anatomy, index, self.workload)
            for index in range(self.anatomy.layers)
        )
        speed = 1.0 if recipe.bits == 32 and precision == "f32" else 0.4
        part = _operations(recipe, self.anatomy, layer, self.workload) / total
        return (1.0 - self.share) * part * share * speed


def _in_arithmetic(times: Mapping[Precision, float], precision: Precision) -> float:
    return times.get(precision, times.get("f32", 0.0))


def _full_width(anatomy: Anatomy, recipe: BranchRecipe, layer: int) -> int:
    return anatomy.heads[layer] if isinstance(recipe, AttentionRecipe) else anatomy.intermediate_size[layer]


def _width(recipe: BranchRecipe, full: int) -> int:
    return full if recipe.level is None else recipe.level


def _rank_share(recipe: BranchRecipe, anatomy: Anatomy, layer: int) -> float:
    if recipe.rank is None:
        return 1.0
    width = _width(recipe, _full_width(anatomy, recipe, layer))
    rows = width * anatomy.head_size if isinstance(recipe, AttentionRecipe) else width
    return recipe.rank * (rows + anatomy.hidden_size) / (rows * anatomy.hidden_size)


def _operations(recipe: BranchRecipe, anatomy: Anatomy, layer: int, workload: Workload) -> float:
    """Multiplications of a branch for one token."""
    width = _width(recipe, _full_width(anatomy, recipe, layer))
    if width == 0:
        return 0.0
    weights = branch_weights(recipe, anatomy, layer)
    if isinstance(recipe, FeedForwardRecipe):
        return weights
    return weights + 2.0 * workload.sequence_length * width * anatomy.head_size


def branch_weights(recipe: BranchRecipe, anatomy: Anatomy, layer: int) -> float:
    """Return the number of weights of a branch's matrices."""
    width = _width(recipe, _full_width(anatomy, recipe, layer))
    if width == 0:
        return 0.0
    share = _rank_share(recipe, anatomy, layer)
    if isinstance(recipe, FeedForwardRecipe):
        return 2.0 * anatomy.hidden_size * width * share
    return 4.0 * anatomy.hidden_size * width * anatomy.head_size * share


_Curve = tuple[list[int], list[float]]
_curve_cache: dict[int, tuple[BranchTable, dict[tuple[str, ...], _Curve]]] = {}


def _curves(table: BranchTable) -> dict[tuple[str, ...], _Curve]:
    """Group the table's entries into width -> time curves by (family, rank, bits, precision)."""
    cached = _curve_cache.get(id(table))
    if cached is not None and cached[0] is table:
        return cached[1]
    points: dict[tuple[str, ...], dict[int, float]] = defaultdict(lambda: {0: 0.0})
    for key, value in table.entries.items():
        family, width, *rest = key.split(":")
        points[(family, *rest)][int(width)] = value
    curves = {key: (sorted(curve), [curve[width] for width in sorted(curve)]) for key, curve in points.items()}
    _curve_cache.clear()
    _curve_cache[id(table)] = (table, curves)
    return curves


def _interpolate(curve: _Curve, width: int) -> float:
    """Return the time of a branch that is there, on straight lines between the widths that were timed.

    Part of a branch's time does not shrink with its width and is saved only with the whole branch. So below the
    narrowest width the line is that of the two narrowest ones, unless this is below the line to no time at all.
    """
    widths, times = curve  # the first width is 0
    if len(widths) > 2 and width < widths[1]:
        slope = (times[2] - times[1]) / (widths[2] - widths[1])
        return max(times[1] * width / widths[1], times[1] - slope * (widths[1] - width))
    if width <= widths[-1]:
        return float(np.interp(width, widths, times))
    return times[-1] * width / widths[-1]
