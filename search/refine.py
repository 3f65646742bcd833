"""Moves that keep a time budget: what a solver over additive errors cannot see, mutation and selection can.

The moves of EvoPress (Sieberling et al., 2024), with predicted time in place of a level count: compress a few units one
level more, then relax others while the budget allows it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.solver import FloatArray
from search.solver import total

IntArray = NDArray[np.int64]
MOST_CHANGES = 10
LEAST_USE = 0.97
"""A move that leaves more of the budget unused than this gives speed away for nothing."""


def mutate(
    levels: Sequence[int], times: Sequence[FloatArray], budget: float, generator: np.random.Generator
) -> tuple[int, ...] | None:
    """Return a neighbour of ``levels`` within the budget, or ``None`` if this draw led nowhere.

    Args:
        levels: Level of each unit; level 0 is the slowest.
        times: Time of each level of each unit, decreasing.
        budget: Largest sum of times.
        generator: Source of randomness.
    """
    current = np.array(levels, dtype=np.int64)
    units = len(current)
    for unit in generator.permutation(units)[: int(min(generator.integers(1, 4), generator.integers(1, 4)))]:
        current[unit] = min(current[unit] + 1, len(times[unit]) - 1)
    # Over budget (the start may be): compress on; below: relax what still fits.
    while total(times, current.tolist()) > budget:
        open_units = [unit for unit in range(units) if current[unit] + 1 < len(times[unit])]
        if not open_units:
            return None
        current[generator.choice(open_units)] += 1
    for unit in generator.permutation(units):
        if current[unit] > 0:
            current[unit] -= 1
            if total(times, current.tolist()) > budget:
                current[unit] += 1
    changed = int((current != np.array(levels)).sum())
    used = total(times, current.tolist())
    if changed == 0 or changed > MOST_CHANGES or used < LEAST_USE * budget:
        return None
    return tuple(current.tolist())


def offspring(
    levels: Sequence[int], times: Sequence[FloatArray], budget: float, count: int, generator: np.random.Generator
) -> list[tuple[int, ...]]:
    """Return up to ``count`` different neighbours within the budget."""
    found: dict[tuple[int, ...], None] = {}
    for _ in range(8 * count):
        candidate = mutate(levels, times, budget, generator)
        if candidate is not None:
            found.setdefault(candidate)
        if len(found) == count:
            break
    return list(found)
