"""Which healed int8 models deserve a training that knows about int8."""

from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import replace

from compressors.recipe import Recipe
from search.goals import meets_drop
from search.pareto import dominates
from search.promote import quality_limit
from search.reference_time import ratio_ceiling
from search.requests import Goal
from search.study import TrialRecord

FINISH_SHARE = 0.08
"""Part of the recovery's time that all of them may take; set aside while one is likely to be needed."""
LEAST_STEPS = 100
"""Where there is no time for so many, a finish is not begun."""
SLOWER = 1.5
"""A step that knows about int8 takes so many times what one in floating point takes."""
SHARE = 0.25
"""Part of the allowed drop that rounding to int8 may take without a finish."""
SHARE_WITHOUT_GOAL = 0.0025
"""The same as a drop, where no drop is given."""


def finish_candidates(
    records: Sequence[TrialRecord], goal: Goal, finished: Collection[str] = ()
) -> list[tuple[TrialRecord, Recipe]]:
    """Return the healed int8 models to finish, the most promising first, each with the recipe to train.

    A candidate is faster for being rounded, and loses more than its share by it. Without that loss it would be on the
    front of all models, as one would that is to be the answer, and not so far beyond the goal that no front shows it.
    Of the weights that a shape had in the course of a race the best count. The recipe comes without smoothing, which
    would move the trained weights off the grid that they are trained on.

    Those that meet the goal without rounding come first, the fastest of them before others, or the most exact one where
    a latency is asked for; then those that miss it by the least.

    Args:
        records: All trials of the job, with expected drops.
        goal: The request's goal.
        finished: Shapes (:func:`shape_digest`) that have had their finish.
    """
    best: dict[str, tuple[TrialRecord, TrialRecord]] = {}
    for record, other in _rounded_pairs(records):
        if other.loss is None or record.recipe is None:
            continue
        shape = shape_digest(record.recipe)
        if shape not in finished and (shape not in best or other.loss < _loss(best[shape][1])):
            best[shape] = record, other
    found = [
        pair for pair in best.values() if _loses_by_rounding(*pair, goal) and _may_be_on_front(*pair, records, goal)
    ]
    ceiling = ratio_ceiling(goal, records)
    found.sort(key=lambda pair: _rank(pair[0], pair[1], goal, ceiling))
    return [(record, _plain(record.recipe)) for record, _ in found if record.recipe is not None]


def lose_by_rounding(records: Sequence[TrialRecord], goal: Goal) -> bool:
    """Whether a trained model is faster in int8 but loses more than its share there, be it an answer or not."""
    return any(_loses_by_rounding(record, other, goal) for record, other in _rounded_pairs(records))


def shape_digest(recipe: Recipe) -> str:
    """Name what a finish trains, whatever its weights."""
    return _plain(recipe).model_copy(update={"weights": None}).digest


def is_int8(record: TrialRecord) -> bool:
    """Whether some of the model's layers are rounded to 8 bits."""
    return record.recipe is not None and any(
        8 in (layer.attention.bits, layer.feed_forward.bits) for layer in record.recipe.layers
    )


def is_trained(record: TrialRecord) -> bool:
    """Whether the model has weights that a training has brought."""
    return _weights(record) is not None


def _rounded_pairs(records: Sequence[TrialRecord]) -> list[tuple[TrialRecord, TrialRecord]]:
    """Return every trained int8 model with the model of the same weights that is not rounded."""
    floating = {_weights(record): record for record in records if not is_int8(record)}
    return [
        (record, floating[_weights(record)])
        for record in records
        if is_trained(record) and is_int8(record) and _weights(record) in floating
    ]


def _loses_by_rounding(record: TrialRecord, other: TrialRecord, goal: Goal) -> bool:
    """Whether rounding costs more than it may, where it gains anything: beside bf16, int8 may be the slower one."""
    if (record.expected_ratio or 0.0) >= (other.expected_ratio or 1.0):
        return False
    share = SHARE_WITHOUT_GOAL if goal.max_drop is None else SHARE * goal.max_drop
    return record.drop is not None and other.drop is not None and record.drop - other.drop > share


def _may_be_on_front(record: TrialRecord, other: TrialRecord, records: Sequence[TrialRecord], goal: Goal) -> bool:
    if goal.max_drop is not None and other.drop is not None and other.drop > quality_limit(goal.max_drop):
        return False
    hoped = replace(record, loss=other.loss).objectives
    found = [entry.objectives for entry in records if entry is not record]
    return hoped is not None and not any(known is not None and dominates(known, hoped) for known in found)


def _rank(record: TrialRecord, other: TrialRecord, goal: Goal, ceiling: float | None) -> tuple[float, bool, float, int]:
    fits = record.size_bytes is None or goal.fits(record.size_bytes)
    late = 0.0 if ceiling is None else max(0.0, (record.expected_ratio or 1.0) - ceiling)  # no finish makes it faster
    good = meets_drop(other.drop, goal) and fits
    fastest = good and goal.max_latency_ms is None
    return late, not good, (record.expected_ratio or 1.0) if fastest else _loss(other), record.number


def _plain(recipe: Recipe) -> Recipe:
    quantization = recipe.quantization.model_copy(update={"smoothing": 0.0})
    return recipe.model_copy(update={"quantization": quantization})


def _weights(record: TrialRecord) -> str | None:
    return None if record.recipe is None else record.recipe.weights


def _loss(record: TrialRecord) -> float:
    return 0.0 if record.loss is None else record.loss
