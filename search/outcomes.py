"""What the trainings of a job have brought, read from their steps and from the trials of the trained models."""

from collections.abc import Sequence
from math import sqrt

from infra.database.models import Step
from search.race import Outcome
from search.race import Place
from search.study import TrialRecord

LEAST_ERROR = 0.001
"""Standard error of a drop without labels, and the least of one with labels."""


def place_of(step: Step) -> Place:
    """Return the number of the training, and the shape."""
    number, index = step.payload["place"]
    return number, index


def outcome_of(step: Step, records: Sequence[TrialRecord]) -> Outcome:
    """Return what a training has brought; its drop is that of the best number format that may be the answer."""
    if step.state != "done" or step.output is None:
        return Outcome(failed=True)
    weights: str = step.output["weights"]
    found = [
        record
        for record in records
        if record.outcome == "done"
        and record.recipe is not None
        and record.recipe.weights == weights
        and record.drop is not None
    ]
    best = min(found, key=lambda record: record.drop or 0.0, default=None)
    if best is None or best.drop is None:
        return Outcome(failed=True)
    curve = tuple((point["seconds"], point["score"]) for point in step.output["curve"])
    return Outcome(failed=False, weights=weights, drop=best.drop, drop_error=_error(best), curve=curve)


def _error(record: TrialRecord) -> float:
    """Half of what the labels leave open: the other half is known from the changed predictions of other models."""
    if record.evidence is None:
        return LEAST_ERROR
    return max(LEAST_ERROR, 0.5 * sqrt(record.evidence.changed / record.evidence.examples))
