"""Which healed int8 model deserves a training that knows about int8."""

from collections.abc import Sequence

from compressors.recipe import Recipe
from search.goals import meets_drop
from search.requests import Goal
from search.study import TrialRecord

FINISH_SHARE = 0.08
"""Part of the recovery's time that is set aside for it."""
SHARE = 0.25
"""Part of the allowed drop that rounding to int8 may take without a finish."""
SHARE_WITHOUT_GOAL = 0.0025
"""The same as a drop, where no drop is given."""


def finish_candidate(records: Sequence[TrialRecord], goal: Goal) -> Recipe | None:
    """Return the int8 recipe to finish, or ``None`` where plain int8 is good enough everywhere.

    The candidate is the fastest healed model that loses more than its share by rounding, and meets the goal without it.
    It comes without smoothing, which would move the trained weights off the grid that they are trained on.

    Args:
        records: Trials of healed models, with expected drops.
        goal: The request's goal.
    """
    share = SHARE_WITHOUT_GOAL if goal.max_drop is None else SHARE * goal.max_drop
    floating = {_weights(record): record for record in records if not _is_int8(record)}
    found = []
    for record in records:
        other = floating.get(_weights(record))
        if not _is_int8(record) or other is None or record.drop is None or other.drop is None:
            continue
        if record.drop - other.drop > share and meets_drop(other.drop, goal):
            found.append(record)
    best = min(found, key=lambda record: (record.expected_ratio or 1.0, record.number), default=None)
    if best is None or best.recipe is None:
        return None
    quantization = best.recipe.quantization.model_copy(update={"smoothing": 0.0})
    return best.recipe.model_copy(update={"quantization": quantization})


def _weights(record: TrialRecord) -> str | None:
    return None if record.recipe is None else record.recipe.weights


def _is_int8(record: TrialRecord) -> bool:
    return record.recipe is not None and any(
        8 in (layer.attention.bits, layer.feed_forward.bits) for layer in record.recipe.layers
    )
