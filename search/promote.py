"""Whether an evaluated candidate deserves time on the device.

A candidate is rejected only when it clearly cannot matter: when in doubt it is measured.
"""

from collections.abc import Iterable

from profilers.types import Estimate
from profilers.types import Quality
from search.requests import Goal
from search.study import TrialRecord

GOAL_MARGIN = 1.0
"""Points of a front are shown up to this many times the goal's drop beyond the goal itself."""
SIZE_TOLERANCE = 1.02


def rejection(
    quality: Quality | None,
    size_bytes: int | None,
    predicted: Estimate | None,
    others: Iterable[TrialRecord],
    goal: Goal,
    *,
    loss: float | None,
) -> str | None:
    """Return why a candidate is not measured, in words, or ``None`` if it is.

    Args:
        quality: Quality on the search split; ``None`` of a model whose size was enough to know.
        size_bytes: Stored size.
        predicted: Latency ratio that the latency model expects, with its interval; ``None`` if it cannot say.
        others: The job's other trials.
        goal: The request's goal.
        loss: The candidate's quality objective, as in its :class:`TrialRecord`.
    """
    if size_bytes is not None and not goal.fits(size_bytes):
        missing = "evaluated" if quality is None else "measured"
        return f"not {missing}: takes {size_bytes / 1e6:.1f} MB, the goal allows {goal.max_size_mb:g} MB"
    assert quality is not None
    assert loss is not None
    if goal.max_drop is not None and quality.drop.low > quality_limit(goal.max_drop):
        return (
            f"not measured: loses {quality.drop.value:.1%} of {quality.metric} "
            f"(at least {quality.drop.low:.1%}), the goal allows {goal.max_drop:.1%}"
        )
    if predicted is None:
        return None
    for other in others:
        if other.ratio is None or other.loss is None or other.outcome != "done":
            continue
        no_smaller = size_bytes is None or other.size_bytes is None or other.size_bytes <= size_bytes * SIZE_TOLERANCE
        if other.loss <= loss and other.ratio < predicted.low and no_smaller:
            return (
                f"not measured: trial {other.number} is at least as good and takes {other.ratio:.2f} of the dense "
                f"time; this one is expected to take {predicted.low:.2f} to {predicted.high:.2f}"
            )
    return None


def quality_limit(max_drop: float) -> float:
    """Largest drop of quality that is still of interest when the goal allows ``max_drop``."""
    return max_drop * (1.0 + GOAL_MARGIN)


def give_up_above(loss: float, size_bytes: int | None, others: Iterable[TrialRecord]) -> float | None:
    """Latency ratio above which a measurement may stop early: the fastest model that is nowhere worse otherwise."""
    ratios = [
        other.ratio
        for other in others
        if other.ratio is not None
        and other.loss is not None
        and other.outcome == "done"
        and other.loss <= loss
        and (size_bytes is None or other.size_bytes is None or other.size_bytes <= size_bytes * SIZE_TOLERANCE)
    ]
    return min(ratios, default=None)
