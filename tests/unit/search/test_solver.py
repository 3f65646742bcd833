import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from search.solver import Block
from search.solver import BudgetTable
from search.solver import Unreachable
from search.solver import efficient_options
from search.solver import least_choice
from search.solver import solve_within
from search.solver import total
from search.solver import total_cost
from search.solver import total_time


def problem(seed, units=4, options=5, whole=True):
    rng = np.random.default_rng(seed)
    times = [rng.integers(0, 20, options).astype(float) if whole else rng.random(options) for _ in range(units)]
    costs = [rng.random(options) for _ in range(units)]
    sizes = [rng.integers(1, 20, options).astype(float) for _ in range(units)]
    return times, costs, sizes


def brute_force(times, costs, budget, sizes=None, size_budget=np.inf):
    choices = itertools.product(*(range(len(unit)) for unit in times))
    feasible = [c for c in choices if total(times, c) <= budget and (sizes is None or total(sizes, c) <= size_budget)]
    return min((total(costs, c) for c in feasible), default=None)


@given(st.integers(0, 10**6))
def test_equals_brute_force_for_every_budget(seed):
    times, costs, _ = problem(seed)
    table = BudgetTable(times, costs, largest=80.0, buckets=80)  # whole times: rounding loses nothing
    for budget in range(0, 81, 3):
        expected = brute_force(times, costs, budget)
        if expected is None:
            with pytest.raises(Unreachable) as caught:
                table.solve(budget)
            assert caught.value.least == sum(unit.min() for unit in times)
        else:
            solution = table.solve(budget)
            assert total(times, solution) <= budget
            assert total(costs, solution) == pytest.approx(expected)


@given(st.integers(0, 10**6), st.floats(0.0, 4.0))
def test_the_smallest_budget_of_a_cost_is_where_brute_force_first_meets_it(seed, most):
    times, costs, _ = problem(seed)
    table = BudgetTable(times, costs, largest=80.0, buckets=80)
    best = [brute_force(times, costs, budget) for budget in range(81)]
    enough = [budget for budget, cost in enumerate(best) if cost is not None and cost <= most]
    if enough:
        assert table.smallest_budget(most) == enough[0]
    else:
        with pytest.raises(Unreachable) as caught:
            table.smallest_budget(most)
        assert caught.value.least == pytest.approx(best[-1])


@given(st.integers(0, 10**6), st.floats(0.5, 3.0))
def test_rounding_never_exceeds_the_budget_and_costs_little(seed, budget):
    times, costs, _ = problem(seed, whole=False)
    try:
        solution = BudgetTable(times, costs, largest=3.0).solve(budget)
    except Unreachable:
        assert sum(unit.min() for unit in times) > budget - 4 * 3.0 / 4000
        return
    assert total(times, solution) <= budget
    tighter = brute_force(times, costs, budget - 4 * 3.0 / 4000)
    assert tighter is None or total(costs, solution) <= tighter + 1e-12  # None: only the budget itself is reachable


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(20, 60), st.integers(15, 60))
def test_two_budgets_are_kept_and_the_hull_is_found(seed, time_budget, size_budget):
    times, costs, sizes = problem(seed)
    feasible = brute_force(times, costs, time_budget, sizes, size_budget)
    try:
        solution = solve_within(times, costs, sizes, time_budget, size_budget, buckets=time_budget)
    except Unreachable:
        assert feasible is None
        return
    assert total(times, solution) <= time_budget
    assert total(sizes, solution) <= size_budget
    # The price finds the hull: no choice beats it in cost plus price times size for some price, so mixing two
    # solutions of the same problem bounds the gap by the largest step of one unit.
    gap = max(float(unit.max() - unit.min()) for unit in costs)
    assert feasible - 1e-9 <= total(costs, solution) <= feasible + 2 * gap


def test_size_that_cannot_be_reached_says_what_can():
    times, costs, sizes = problem(1)
    with pytest.raises(Unreachable) as caught:
        solve_within(times, costs, sizes, 80.0, 0.5)
    assert caught.value.least == sum(unit.min() for unit in sizes)


@given(st.integers(0, 10**6))
def test_filtered_options_lose_no_optimum(seed):
    times, costs, _ = problem(seed)
    kept = [efficient_options(time, cost) for time, cost in zip(times, costs, strict=True)]
    fewer_times = [time[k] for time, k in zip(times, kept, strict=True)]
    fewer_costs = [cost[k] for cost, k in zip(costs, kept, strict=True)]
    assert all((np.diff(time) < 0).all() for time in fewer_times)
    assert all((np.diff(cost) > 0).all() for cost in fewer_costs)
    for budget in (20, 35, 50):
        assert brute_force(times, costs, budget) == brute_force(fewer_times, fewer_costs, budget)


def with_blocks(seed, units=4, options=4):
    """Whole times: a unit's last option is the unit being removed, and two units each are a block."""
    times, costs, sizes = problem(seed, units, options)
    rng = np.random.default_rng(seed + 1)
    blocks = []
    for first in range(0, units - 1, 2):
        for unit in (first, first + 1):
            times[unit][-1], sizes[unit][-1] = 0.0, 0.0
        times[first] += (saved := float(rng.integers(0, 6)))
        blocks.append(Block(first, (options - 1, options - 1), float(rng.random() * 2), saved))
    return times, costs, sizes, blocks


def brute_force_with_blocks(times, costs, blocks, budget, least_kept=0):
    choices = itertools.product(*(range(len(unit)) for unit in times))
    allowed = [c for c in choices if sum(not block.is_gone(c) for block in blocks) >= least_kept]
    feasible = [c for c in allowed if total_time(times, c, blocks) <= budget]
    return min((total_cost(costs, c, blocks) for c in feasible), default=None)


@pytest.mark.parametrize("least_kept", [0, 1, 2])
@given(st.integers(0, 10**6))
def test_units_that_go_together_equal_brute_force_for_every_budget(least_kept, seed):
    times, costs, _, blocks = with_blocks(seed, units=5)
    table = BudgetTable(times, costs, largest=80.0, buckets=80, blocks=blocks, least_kept=least_kept)
    for budget in range(0, 81, 5):
        expected = brute_force_with_blocks(times, costs, blocks, budget, least_kept)
        if expected is None:
            with pytest.raises(Unreachable) as caught:
                table.solve(budget)
            assert brute_force_with_blocks(times, costs, blocks, caught.value.least, least_kept) is not None
            assert brute_force_with_blocks(times, costs, blocks, caught.value.least - 1, least_kept) is None
            continue
        solution = table.solve(budget)
        assert total_time(times, solution, blocks) <= budget
        assert total_cost(costs, solution, blocks) == pytest.approx(expected)
        assert sum(not block.is_gone(solution) for block in blocks) >= least_kept


@given(st.integers(0, 10**6))
def test_a_block_that_can_only_go_goes(seed):
    """What a merge of layers asks for: one option in both units."""
    times, costs, sizes, blocks = with_blocks(seed)
    for unit in (2, 3):
        times[unit], costs[unit], sizes[unit] = times[unit][-1:], costs[unit][-1:], sizes[unit][-1:]
    blocks[1] = replace(blocks[1], removed=(0, 0))
    for size_budget in (None, 12.0):
        try:
            solution = solve_within(times, costs, sizes, 30.0, size_budget, 30, blocks, least_kept=1)
        except Unreachable:
            continue
        assert solution[2:] == (0, 0)
        assert not blocks[0].is_gone(solution)
        assert total_time(times, solution, blocks) <= 30.0
        assert size_budget is None or total(sizes, solution) <= size_budget


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.integers(10, 50), st.integers(5, 60))
def test_two_budgets_are_kept_where_units_go_together(seed, time_budget, size_budget):
    times, costs, sizes, blocks = with_blocks(seed)
    choices = itertools.product(*(range(len(unit)) for unit in times))
    feasible = [
        total_cost(costs, c, blocks)
        for c in choices
        if total_time(times, c, blocks) <= time_budget
        and total(sizes, c) <= size_budget
        and sum(not block.is_gone(c) for block in blocks) >= 1
    ]
    try:
        solution = solve_within(times, costs, sizes, time_budget, size_budget, time_budget, blocks, least_kept=1)
    except Unreachable:
        assert not feasible
        return
    assert total_time(times, solution, blocks) <= time_budget
    assert total(sizes, solution) <= size_budget
    assert sum(not block.is_gone(solution) for block in blocks) >= 1
    gap = max([float(unit.max() - unit.min()) for unit in costs] + [2 + block.cost for block in blocks])
    assert min(feasible) - 1e-9 <= total_cost(costs, solution, blocks) <= min(feasible) + 2 * gap


@given(st.integers(0, 10**6), st.integers(0, 2))
def test_the_least_choice_is_that_of_brute_force(seed, least_kept):
    times, costs, sizes, blocks = with_blocks(seed, units=5)
    choices = list(itertools.product(*(range(len(unit)) for unit in times)))
    allowed = [c for c in choices if sum(not block.is_gone(c) for block in blocks) >= least_kept]
    found = least_choice(times, costs, blocks, least_kept)
    assert found in allowed
    assert total_time(times, found, blocks) == min(total_time(times, c, blocks) for c in allowed)
    unsaving = [replace(block, saved=0.0) for block in blocks]
    smallest = least_choice(sizes, costs, unsaving, least_kept)
    assert total(sizes, smallest) == min(total(sizes, c) for c in allowed)


def test_a_deep_model_is_solved_in_milliseconds():
    import time

    times, costs, _ = problem(0, units=48, options=40, whole=False)
    begin = time.perf_counter()
    table = BudgetTable(times, costs, largest=20.0)
    for budget in np.linspace(1.0, 20.0, 50):
        table.solve(budget)
    assert time.perf_counter() - begin < 2.0
