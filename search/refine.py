"""Moves that keep a time budget: what a solver over additive errors cannot see, mutation and selection can.

The moves of EvoPress (Sieberling et al., 2024), with predicted time in place of a level count: compress a few units one
level more, then relax others while the budget allows it. Where whole blocks may go, one that is gone and one that is
there may change places.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from search.solver import Block
from search.solver import FloatArray
from search.solver import total_time

IntArray = NDArray[np.int64]
MOST_CHANGES = 10
LEAST_USE = 0.97
"""A move that leaves more of the budget unused than this gives speed away for nothing."""
SWAPS = 0.25
"""Share of the moves that begin with two blocks that change places, where there are such."""


def mutate(
    levels: Sequence[int],
    times: Sequence[FloatArray],
    budget: float,
    generator: np.random.Generator,
    blocks: Sequence[Block] = (),
    least_kept: int = 0,
) -> tuple[int, ...] | None:
    """Return a neighbour of ``levels`` within the budget, or ``None`` if this draw led nowhere.

    Args:
        levels: Level of each unit; level 0 is the slowest.
        times: Time of each level of each unit, decreasing.
        budget: Largest sum of times.
        generator: Source of randomness.
        blocks: Pairs of units that may go together, in levels; the last level of a unit is its being removed.
        least_kept: How many blocks have to stay, at least.
    """
    current = np.array(levels, dtype=np.int64)
    units = len(current)
    _swap(current, times, blocks, generator)
    for unit in generator.permutation(units)[: int(min(generator.integers(1, 4), generator.integers(1, 4)))]:
        current[unit] = min(current[unit] + 1, len(times[unit]) - 1)
    # Over budget (the start may be): compress on; below: relax what still fits.
    while total_time(times, current.tolist(), blocks) > budget:
        open_units = [unit for unit in range(units) if current[unit] + 1 < len(times[unit])]
        if not open_units:
            return None
        current[generator.choice(open_units)] += 1
    for unit in generator.permutation(units):
        if current[unit] > 0:
            current[unit] -= 1
            if total_time(times, current.tolist(), blocks) > budget:
                current[unit] += 1
    changed = int((current != np.array(levels)).sum())
    used = total_time(times, current.tolist(), blocks)
    if changed == 0 or changed > MOST_CHANGES or used < LEAST_USE * budget:
        return None
    if sum(not block.is_gone(current.tolist()) for block in blocks) < least_kept:
        return None
    return tuple(current.tolist())


def offspring(
    levels: Sequence[int],
    times: Sequence[FloatArray],
    budget: float,
    count: int,
    generator: np.random.Generator,
    blocks: Sequence[Block] = (),
    least_kept: int = 0,
) -> list[tuple[int, ...]]:
    """Return up to ``count`` different neighbours within the budget; arguments as for :func:`mutate`."""
    found: dict[tuple[int, ...], None] = {}
    for _ in range(8 * count):
        candidate = mutate(levels, times, budget, generator, blocks, least_kept)
        if candidate is not None:
            found.setdefault(candidate)
        if len(found) == count:
            break
    return list(found)


def _swap(
    current: IntArray, times: Sequence[FloatArray], blocks: Sequence[Block], generator: np.random.Generator
) -> None:
    """Now and then, put a block that is gone in the place of one that is there."""
    gone = [block for block in blocks if block.is_gone(current.tolist())]
    there = [block for block in blocks if block not in gone]
    if not gone or not there or generator.random() > SWAPS:
        return
    back, away = gone[generator.integers(len(gone))], there[generator.integers(len(there))]
    for side in (0, 1):
        old, new = away.first + side, back.first + side
        most = len(times[new]) - 1 - (current[old] != away.removed[side])
        current[new], current[old] = min(current[old], most), away.removed[side]
