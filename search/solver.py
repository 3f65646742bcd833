"""Exact choice of one option per unit under an additive time budget, for all budgets at once.

The dynamic program of SPDY (Frantar and Alistarh, 2022): time is cut into buckets, ``best[b]`` is the least cost of the
units so far within ``b`` buckets. Times are rounded up, so a solution never exceeds its budget.

Shapes: a problem has ``units`` units; unit ``u`` has ``times[u]``, ``costs[u]`` (and ``sizes[u]``), float arrays of the
length of its options.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
BUCKETS = 4000
BISECTIONS = 40


class Unreachable(ValueError):
    """No choice meets the budget.

    Attributes:
        what: Of what there is too little: ``time``, ``size`` or ``cost``.
        least: The smallest amount that is reachable.
    """

    def __init__(self, what: str, budget: float, least: float) -> None:
        super().__init__(f"a {what} of {budget:g} cannot be reached, the least is {least:g}")
        self.what, self.least = what, least


class BudgetTable:
    """Solutions for every time budget up to ``largest``.

    Args:
        times: Time of each option, non-negative.
        costs: Cost of each option; what is minimised is their sum.
        largest: Largest budget that will be asked for.
        buckets: Resolution: a time counts as up to ``largest / buckets`` more than it is.
    """

    def __init__(
        self, times: Sequence[FloatArray], costs: Sequence[FloatArray], largest: float, buckets: int = BUCKETS
    ) -> None:
        self._largest = max(largest, 0.0)
        self._bucket = self._largest / buckets or 1.0
        self._least = float(sum(unit.min() for unit in times))
        self._steps = [np.ceil(unit / self._bucket - 1e-9).astype(np.int64) for unit in times]
        self._costs = costs
        self._options = [efficient_options(steps, cost)[::-1] for steps, cost in zip(self._steps, costs, strict=True)]
        self._best = np.full((len(times) + 1, buckets + 1), np.inf)
        """``[units + 1, buckets + 1]``: least cost of the first units in exactly so many buckets."""
        self._best[0, 0] = 0.0
        for unit in range(len(times)):
            self._add_unit(unit)

    def solve(self, budget: float) -> tuple[int, ...]:
        """Return the option of each unit that costs least within ``budget``.

        Raises:
            Unreachable: If nothing is that fast.
        """
        limit = int(min(budget, self._largest) / self._bucket + 1e-9)
        reachable = self._best[-1, : max(limit, -1) + 1]
        if not np.isfinite(reachable).any():
            raise Unreachable("time", budget, self._least)
        bucket = int(np.argmin(reachable))
        solution: list[int] = []
        for unit in reversed(range(len(self._steps))):
            option = self._last_option(unit, bucket)
            solution.append(option)
            bucket -= int(self._steps[unit][option])
        return tuple(reversed(solution))

    def smallest_budget(self, most: float) -> float:
        """Return the smallest time budget within which a choice costs at most ``most``.

        Raises:
            Unreachable: If every choice costs more.
        """
        enough = np.flatnonzero(self._best[-1] <= most)
        if not enough.size:
            raise Unreachable("cost", most, float(self._best[-1].min()))
        return float(enough[0]) * self._bucket

    def _add_unit(self, unit: int) -> None:
        before, best = self._best[unit], self._best[unit + 1]
        candidate = np.empty_like(best)
        for option in self._options[unit]:
            step = int(self._steps[unit][option])
            size = len(best) - step
            if size > 0:
                np.add(before[:size], self._costs[unit][option], out=candidate[:size])
                np.minimum(best[step:], candidate[:size], out=best[step:])

    def _last_option(self, unit: int, bucket: int) -> int:
        """Return the option of the last of the first ``unit + 1`` units in their best choice for a bucket."""
        options = self._options[unit]
        options = options[self._steps[unit][options] <= bucket]
        values = self._best[unit, bucket - self._steps[unit][options]] + self._costs[unit][options]
        return int(options[np.argmin(values)])


def solve_within(
    times: Sequence[FloatArray],
    costs: Sequence[FloatArray],
    sizes: Sequence[FloatArray],
    time_budget: float,
    size_budget: float | None,
    buckets: int = BUCKETS,
) -> tuple[int, ...]:
    """Return a choice of small cost within a time budget and, where there is one, a size budget.

    A price per unit of size is added to the costs and bisected: the smallest price whose solution is small enough.
    Exact on the convex hull of the trade-off between cost and size.

    Raises:
        Unreachable: If no choice meets the time budget, or none of those is small enough at any price.
    """

    def solve(price: float) -> tuple[int, ...]:
        priced = [cost + price * size for cost, size in zip(costs, sizes, strict=True)]
        return BudgetTable(times, priced, time_budget, buckets).solve(time_budget)

    solution = solve(0.0)
    if size_budget is None or total(sizes, solution) <= size_budget:
        return solution
    smallest = BudgetTable(times, sizes, time_budget, buckets).solve(time_budget)
    if total(sizes, smallest) > size_budget:
        raise Unreachable("size", size_budget, total(sizes, smallest))
    low, high, found = 0.0, _price_scale(costs, sizes), smallest
    for _ in range(BISECTIONS):
        price = (low + high) / 2
        solution = solve(price)
        if total(sizes, solution) <= size_budget:
            high, found = price, solution
        else:
            low = price
    return found


def total(values: Sequence[FloatArray], solution: Sequence[int]) -> float:
    """Return the sum of the chosen options' values."""
    return float(sum(unit[option] for unit, option in zip(values, solution, strict=True)))


def efficient_options(time: FloatArray | NDArray[np.int64], cost: FloatArray) -> NDArray[np.intp]:
    """Return the options of a unit that are not slower *and* worse than another, slowest first."""
    order = np.lexsort((cost, time))
    kept: list[int] = []
    for option in order:
        if not kept or cost[option] < cost[kept[-1]]:
            kept.append(int(option))
    return np.array(kept[::-1], dtype=np.intp)


def _price_scale(costs: Sequence[FloatArray], sizes: Sequence[FloatArray]) -> float:
    """A price at which size outweighs every difference of cost."""
    differences = np.concatenate([np.abs(np.diff(np.sort(unit))) for unit in sizes])
    smallest = differences[differences > 0].min(initial=np.inf)
    spread = sum(float(unit.max() - unit.min()) for unit in costs) + 1e-12
    return spread / smallest if np.isfinite(smallest) else spread
