"""Exact choice of one option per unit under an additive time budget, for all budgets at once.

The dynamic program of SPDY (Frantar and Alistarh, 2022): time is cut into buckets, ``best[b]`` is the least cost of the
units so far within ``b`` buckets. Times are rounded up, so a solution never exceeds its budget. Two units that may go
together (:class:`Block`) are a third way from the state before them to the state behind them.

Shapes: a problem has ``units`` units; unit ``u`` has ``times[u]``, ``costs[u]`` (and ``sizes[u]``), float arrays of the
length of its options. A choice has the index of one option for each unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Options = NDArray[np.intp]
Choice = tuple[int, ...]
BUCKETS = 4000
BISECTIONS = 40
_Way = tuple[float, Choice, int, int]
"""Cost up to here, the options of the last unit or two, and where that came from."""


class Unreachable(ValueError):
    """No choice meets the budget.

    Attributes:
        what: Of what there is too little: ``time``, ``size`` or ``cost``.
        least: The smallest amount that is reachable.
    """

    def __init__(self, what: str, budget: float, least: float) -> None:
        super().__init__(f"a {what} of {budget:g} cannot be reached, the least is {least:g}")
        self.what, self.least = what, least


@dataclass(frozen=True)
class Block:
    """Two units, one behind the other, that may go together: the branches of a layer.

    Attributes:
        first: Index of the first of the two.
        removed: The option of either that stands for nothing being left of it. Both at once are the block being gone.
        cost: Of the block being gone; what the two options cost says nothing about it.
        saved: Time that goes with the block beyond what the two options take, at most their sum.
    """

    first: int
    removed: tuple[int, int]
    cost: float
    saved: float = 0.0

    def is_gone(self, choice: Sequence[int]) -> bool:
        """Whether nothing is left of the block."""
        return (choice[self.first], choice[self.first + 1]) == self.removed

    def sum(self, values: Sequence[FloatArray]) -> float:
        """Return the sum of what the two removed options have."""
        return float(values[self.first][self.removed[0]] + values[self.first + 1][self.removed[1]])

    def time(self, times: Sequence[FloatArray]) -> float:
        """Return what is left of the time of the block being gone."""
        return max(0.0, self.sum(times) - self.saved)


class BudgetTable:
    """Solutions for every time budget up to ``largest``.

    Args:
        times: Time of each option, non-negative.
        costs: Cost of each option; what is minimised is their sum.
        largest: Largest budget that will be asked for.
        buckets: Resolution: a time counts as up to ``largest / buckets`` more than it is.
        blocks: Pairs of units that may go together; no two share a unit.
        least_kept: How many blocks have to stay, at least; each takes as much work again.
    """

    def __init__(
        self,
        times: Sequence[FloatArray],
        costs: Sequence[FloatArray],
        largest: float,
        buckets: int = BUCKETS,
        blocks: Sequence[Block] = (),
        least_kept: int = 0,
    ) -> None:
        self._largest = max(largest, 0.0)
        self._bucket = self._largest / buckets or 1.0
        self._problem = (times, costs, blocks, least_kept)
        self._steps = [self._in_buckets(unit) for unit in times]
        self._gone_steps = {block.first: int(self._in_buckets(block.time(times))) for block in blocks}
        self._costs = costs
        removed = {block.first + side: block.removed[side] for block in blocks for side in (0, 1)}
        self._options = [
            _kept_options(steps, cost, removed.get(unit))
            for unit, (steps, cost) in enumerate(zip(self._steps, costs, strict=True))
        ]
        self._removed = removed
        self._ending_at = {block.first + 1: block for block in blocks}
        states = (least_kept + 1, buckets + 1)
        self._best = np.full((len(times) + 1, *states), np.inf)
        """``[units + 1, blocks kept, buckets + 1]``: least cost of the first units in exactly so many buckets, with so
        many of their blocks there; in the last row with that many or more."""
        self._best[0, 0, 0] = 0.0
        self._with_first = {block.first: np.full(states, np.inf) for block in blocks}
        """The same for the units up to the first one of a block, where something is left of that one."""
        self._candidate = np.empty(states)
        for unit in range(len(times)):
            self._add_unit(unit)

    def solve(self, budget: float) -> Choice:
        """Return the option of each unit that costs least within ``budget``.

        Raises:
            Unreachable: If nothing is that fast.
        """
        limit = int(min(budget, self._largest) / self._bucket + 1e-9)
        reachable = self._best[-1, -1, : max(limit, -1) + 1]
        if not np.isfinite(reachable).any():
            times, costs, blocks, least_kept = self._problem
            least = total_time(times, least_choice(times, costs, blocks, least_kept), blocks)
            raise Unreachable("time", budget, least)
        state, bucket = self._best.shape[1] - 1, int(np.argmin(reachable))
        solution: Choice = ()
        while len(solution) < len(self._steps):
            taken, state, bucket = self._last_options(len(self._steps) - len(solution) - 1, state, bucket)
            solution = taken + solution
        return solution

    def smallest_budget(self, most: float) -> float:
        """Return the smallest time budget within which a choice costs at most ``most``.

        Raises:
            Unreachable: If every choice costs more.
        """
        best = self._best[-1, -1]
        enough = np.flatnonzero(best <= most)
        if not enough.size:
            raise Unreachable("cost", most, float(best.min()))
        return float(enough[0]) * self._bucket

    def _in_buckets(self, time: FloatArray | float) -> NDArray[np.int64]:
        return np.ceil(np.asarray(time) / self._bucket - 1e-9).astype(np.int64)

    def _add_unit(self, unit: int) -> None:
        before, best, block = self._best[unit], self._best[unit + 1], self._ending_at.get(unit)
        if block is not None:
            kept = np.full_like(best, np.inf)
            self._offer(unit, self._options[unit], before, kept)
            self._offer(unit, block.removed[1:], self._with_first[block.first], kept)
            best[1:] = kept[:-1]
            np.minimum(best[-1], kept[-1], out=best[-1])
            self._relax(self._best[block.first], best, self._gone_steps[block.first], block.cost)
        elif unit in self._with_first:
            self._offer(unit, self._options[unit], before, self._with_first[unit])
            best[:] = self._with_first[unit]
            self._offer(unit, (self._removed[unit],), before, best)
        else:
            self._offer(unit, self._options[unit], before, best)

    def _offer(self, unit: int, options: Options | Sequence[int], before: FloatArray, best: FloatArray) -> None:
        for option in options:
            self._relax(before, best, int(self._steps[unit][option]), float(self._costs[unit][option]))

    def _relax(self, before: FloatArray, best: FloatArray, steps: int, cost: float) -> None:
        size = before.shape[-1] - steps
        if size > 0:
            candidate = self._candidate[: len(before), :size]
            np.add(before[:, :size], cost, out=candidate)
            np.minimum(best[:, steps:], candidate, out=best[:, steps:])

    def _last_options(self, unit: int, state: int, bucket: int) -> tuple[Choice, int, int]:
        """Return how the best choice of the first ``unit + 1`` units in a bucket ends.

        Returns:
            The options of its last unit, or of its last two, and state and bucket before these.
        """
        block = self._ending_at.get(unit)
        if block is None:
            removed = [self._removed[unit]] if unit in self._removed else []
            options = np.append(self._options[unit], removed).astype(np.intp)
            _, option = self._last_option(unit, options, self._best[unit, state], bucket)
            return (option,), state, bucket - int(self._steps[unit][option])
        enough = state == len(self._best[unit]) - 1
        before = ([state - 1] if state else []) + ([state] if enough else [])
        ways = [way for kept in before for way in self._ways_to_keep(block, kept, bucket)]
        earlier = bucket - self._gone_steps[block.first]
        if earlier >= 0:
            cost = float(self._best[block.first, state, earlier]) + block.cost
            ways.append((cost, block.removed, state, earlier))
        return min(ways)[1:]

    def _ways_to_keep(self, block: Block, before: int, bucket: int) -> list[_Way]:
        """Return how the best choice may end with something left of a block: of the second unit, or of the first."""
        first, second = block.first, block.first + 1
        cost, option = self._last_option(second, self._options[second], self._best[second, before], bucket)
        ways: list[_Way] = [(cost, (option,), before, bucket - int(self._steps[second][option]))]
        removed = block.removed[1]
        earlier = bucket - int(self._steps[second][removed])
        cost, option = self._last_option(first, self._options[first], self._best[first, before], earlier)
        cost += float(self._costs[second][removed])
        ways.append((cost, (option, removed), before, earlier - int(self._steps[first][option])))
        return ways

    def _last_option(self, unit: int, options: Options, before: FloatArray, bucket: int) -> tuple[float, int]:
        """Return the least cost up to a unit in a bucket, and the unit's option; the last one if there is no way."""
        options = options[self._steps[unit][options] <= bucket]
        if not options.size:
            return np.inf, -1
        values = before[bucket - self._steps[unit][options]] + self._costs[unit][options]
        best = int(np.argmin(values))
        return float(values[best]), int(options[best])


def solve_within(
    times: Sequence[FloatArray],
    costs: Sequence[FloatArray],
    sizes: Sequence[FloatArray],
    time_budget: float,
    size_budget: float | None,
    buckets: int = BUCKETS,
    blocks: Sequence[Block] = (),
    least_kept: int = 0,
) -> Choice:
    """Return a choice of small cost within a time budget and, where there is one, a size budget.

    A price per unit of size is added to the costs and bisected: the smallest price whose solution is small enough.
    Exact on the convex hull of the trade-off between cost and size. What is left of a block that is gone has the size
    of its two options.

    Raises:
        Unreachable: If no choice meets the time budget, or none of those is small enough at any price.
    """

    def solve(costs: Sequence[FloatArray], blocks: Sequence[Block]) -> Choice:
        def keeping(count: int) -> Choice:
            return BudgetTable(times, costs, time_budget, buckets, blocks, count).solve(time_budget)

        solution = keeping(0)  # counting takes longer, and is seldom needed
        enough = sum(not block.is_gone(solution) for block in blocks) >= least_kept
        return solution if enough else keeping(least_kept)

    def priced(price: float) -> Choice:
        dearer = [cost + price * size for cost, size in zip(costs, sizes, strict=True)]
        return solve(dearer, [replace(block, cost=block.cost + price * block.sum(sizes)) for block in blocks])

    solution = solve(costs, blocks)
    if size_budget is None or total(sizes, solution) <= size_budget:
        return solution
    smallest = solve(sizes, [replace(block, cost=block.sum(sizes)) for block in blocks])
    if total(sizes, smallest) > size_budget:
        raise Unreachable("size", size_budget, total(sizes, smallest))
    low, high, found = 0.0, _price_scale(costs, sizes, blocks), smallest
    for _ in range(BISECTIONS):
        price = (low + high) / 2
        solution = priced(price)
        if total(sizes, solution) <= size_budget:
            high, found = price, solution
        else:
            low = price
    return found


def least_choice(
    values: Sequence[FloatArray],
    costs: Sequence[FloatArray],
    blocks: Sequence[Block] = (),
    least_kept: int = 0,
) -> Choice:
    """Return the choice of the least sum of ``values``, which are times or sizes; of equal ones, the cheapest.

    Blocks go where most is saved by that; at least ``least_kept`` of them stay.
    """
    choice = [_least_option(value, cost) for value, cost in zip(values, costs, strict=True)]
    present = {block: _least_present(block, values, costs) for block in blocks}

    def saving(block: Block) -> float:
        return present[block][0] - block.time(values)

    for number, block in enumerate(sorted(blocks, key=saving, reverse=True)):
        may_go = number < len(blocks) - least_kept
        gone = may_go and (saving(block), present[block][1] - block.cost) > (0.0, 0.0)
        choice[block.first : block.first + 2] = block.removed if gone else present[block][2]
    return tuple(choice)


def total(values: Sequence[FloatArray], solution: Sequence[int]) -> float:
    """Return the sum of the chosen options' values."""
    return float(sum(unit[option] for unit, option in zip(values, solution, strict=True)))


def total_time(times: Sequence[FloatArray], solution: Sequence[int], blocks: Sequence[Block]) -> float:
    """Return the sum of the chosen options' times, less what goes with whole blocks."""
    gone = [block for block in blocks if block.is_gone(solution)]
    return total(times, solution) - sum(block.sum(times) - block.time(times) for block in gone)


def total_cost(costs: Sequence[FloatArray], solution: Sequence[int], blocks: Sequence[Block]) -> float:
    """Return the sum of the chosen options' costs, and of whole blocks that are gone."""
    gone = [block for block in blocks if block.is_gone(solution)]
    return total(costs, solution) + sum(block.cost - block.sum(costs) for block in gone)


def efficient_options(time: FloatArray | NDArray[np.int64], cost: FloatArray) -> Options:
    """Return the options of a unit that are not slower *and* worse than another, slowest first."""
    order = np.lexsort((cost, time))
    kept: list[int] = []
    for option in order:
        if not kept or cost[option] < cost[kept[-1]]:
            kept.append(int(option))
    return np.array(kept[::-1], dtype=np.intp)


def _kept_options(steps: NDArray[np.int64], cost: FloatArray, removed: int | None) -> Options:
    """Return the efficient ones of a unit's options, fastest first, of those that leave something of it."""
    if removed is None:
        return efficient_options(steps, cost)[::-1]
    others = np.delete(np.arange(len(cost)), removed)
    return others[efficient_options(steps[others], cost[others])[::-1]]


def _least_option(value: FloatArray, cost: FloatArray) -> int:
    return int(np.lexsort((cost, value))[0])


_Present = tuple[float, float, Choice]
"""Value, cost and options of both units of a block that is not gone."""


def _least_present(block: Block, values: Sequence[FloatArray], costs: Sequence[FloatArray]) -> _Present:
    """Return the best of a block that is there; infinite if it has to go."""
    units = slice(block.first, block.first + 2)
    ways = []
    for side in (0, 1):
        left = [value.copy() for value in values[units]]
        left[side][block.removed[side]] = np.inf
        options = tuple(_least_option(value, cost) for value, cost in zip(left, costs[units], strict=True))
        ways.append((total(left, options), total(costs[units], options), options))
    return min(ways)


def _price_scale(costs: Sequence[FloatArray], sizes: Sequence[FloatArray], blocks: Sequence[Block]) -> float:
    """A price at which size outweighs every difference of cost."""
    differences = np.concatenate([np.abs(np.diff(np.sort(unit))) for unit in sizes])
    smallest = differences[differences > 0].min(initial=np.inf)
    spread = sum(float(unit.max() - unit.min()) for unit in costs) + sum(block.cost for block in blocks) + 1e-12
    return spread / smallest if np.isfinite(smallest) else spread
