"""Where on the front to look next: latency ratios worth solving for."""

from collections.abc import Iterable
from collections.abc import Sequence
from itertools import pairwise
from math import log
from math import sqrt

from search.pareto import non_dominated
from search.reference_time import ratio_ceiling
from search.requests import Goal
from search.study import TrialRecord

BETWEEN = (0.5, 0.25, 0.75, 0.1)
CEILING_SHARE = (1.0, 0.97, 0.93, 0.88)
WINDOW = 1.15
SMALL_LOSS = 0.01
MOST_LOSS = 0.15
"""Nobody wants a model that loses more; without a goal, no trials are spent there on purpose."""
LONGEST_STEP = 0.65
"""A step towards faster models goes at most to this fraction of the best ratio."""


def spread_target(position: int) -> float:
    """Return the ``position``-th point of the van der Corput sequence: even cover of (0, 1) however many are drawn."""
    value, base = 0.0, 0.5
    index = position + 1
    while index:
        value += base * (index & 1)
        index >>= 1
        base /= 2
    return value


def measured(trials: Iterable[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that say what can be had: those with a ratio and a loss."""
    return [
        trial
        for trial in trials
        if trial.outcome == "done" and trial.taught_ratio is not None and trial.loss is not None
    ]


def target_ratio(known: Sequence[TrialRecord], goal: Goal, turn: int, *, slowest: float, fastest: float) -> float:
    """Return the latency ratio to aim for.

    Maximum drop: between the fastest model that meets it and the best of the faster ones, which do not. Latency
    ceiling: at it and slightly below. No goal: into the largest gap of the front.

    Args:
        known: Trials so far, as :func:`measured` returns them.
        goal: The request's goal.
        turn: Counts up, so that successive targets differ.
        slowest: Largest ratio that is worth a try.
        fastest: Smallest ratio that is worth a try.
    """
    if goal.max_latency_ms is not None:
        ceiling = ratio_ceiling(goal, known) or sqrt(slowest * fastest)
        return max(fastest, ceiling * CEILING_SHARE[turn % len(CEILING_SHARE)])
    if goal.max_drop is not None:
        return _between_feasible_and_not(known, goal.max_drop, turn, slowest, fastest)
    return _largest_gap(known, turn, slowest, fastest)


def target_window(known: Sequence[TrialRecord], goal: Goal, *, slowest: float, fastest: float) -> tuple[float, float]:
    """Return the latency ratios, slow and fast, between which targets are worth a try; all of them without a goal."""
    if goal.is_open:
        return slowest, fastest
    best = target_ratio(known, goal, 0, slowest=slowest, fastest=fastest)
    return min(slowest, best * WINDOW), max(fastest, best / WINDOW)


def _between_feasible_and_not(
    known: Sequence[TrialRecord], max_drop: float, turn: int, slowest: float, fastest: float
) -> float:
    ours = [
        (t.taught_ratio, t.drop)
        for t in known
        if t.recipe is not None and t.taught_ratio is not None and t.drop is not None
    ]
    feasible = [ratio for ratio, drop in ours if drop <= max_drop]
    share = BETWEEN[turn % len(BETWEEN)]
    if not feasible:
        tried = max((ratio for ratio, _ in ours), default=fastest)
        return float(slowest ** (1 - share) * min(tried, slowest) ** share)
    best = min(feasible)
    # One that loses more, though it is slower, was a bad allocation and says nothing about its speed.
    missed = [(drop, -ratio) for ratio, drop in ours if drop > max_drop and ratio < best]
    too_fast = -min(missed)[1] if missed else fastest
    limit = max(too_fast, fastest, best * LONGEST_STEP)
    return float(best ** (1 - share) * min(limit, best) ** share)


def _largest_gap(known: Sequence[TrialRecord], turn: int, slowest: float, fastest: float) -> float:
    points = [
        (t.ratio, t.loss)
        for t in known
        if t.recipe is not None and t.ratio is not None and t.loss is not None and t.loss <= MOST_LOSS
    ]
    if not points:
        return sqrt(slowest * fastest)
    keep = non_dominated(points)
    front = sorted(point for point, kept in zip(points, keep, strict=True) if kept)
    ends = [(min(fastest, front[0][0]), front[0][1] * 2 + 1e-6), *front, (max(slowest, front[-1][0]), 0.0)]
    gaps = [
        (log(max(right[0] / left[0], 1.0)) * _loss_distance(left[1], right[1]), sqrt(left[0] * right[0]))
        for left, right in pairwise(ends)
    ]
    gaps.sort(reverse=True)
    return gaps[turn % min(4, len(gaps))][1]


def _loss_distance(worse: float, better: float) -> float:
    """Distance on a scale on which small losses count: from 0 to 1 point is as far as from 1 to 3."""
    return log((max(worse, 0.0) + SMALL_LOSS) / (max(better, 0.0) + SMALL_LOSS))
