"""Whether the first part of the texts is enough to know that a candidate cannot matter.

Evaluation stops there when, by everything that is uncertain about it, the candidate still comes out as useless: when in
doubt it goes on. Only outputs are compared, no labels: on so few examples labels say next to nothing, while the share
of changed predictions is known within a few points, and what it costs is known from the job's other trials.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import BaseModel
from pydantic import ConfigDict

from infra.database.models import JsonObject
from profilers.types import FirstLook
from search.drop_model import LARGEST_CHANGE
from search.drop_model import DropModel
from search.drop_model import least_drop
from search.promote import quality_limit
from search.requests import Goal
from search.study import TrialRecord

ALWAYS_WHOLE = frozenset({"baseline", "recovery"})
"""Sources whose trials are evaluated to the end: others are held against the ones, minutes of training went into the
others, and the race between shapes goes by what these came to."""


class Patience(BaseModel):
    """How bad a candidate may be before its evaluation ends.

    Attributes:
        max_size_mb: The goal's: a larger file is not evaluated at all.
        max_drop: The goal's; ``None``: only what is no better than a constant is given up.
        curve: What changed predictions cost in this job (:class:`search.drop_model.DropModel`); ``None`` without
            labels, where the change itself is the drop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_size_mb: float | None = None
    max_drop: float | None = None
    curve: tuple[float, float] | None = None

    def fits(self, size_bytes: int) -> bool:
        """Whether a file of so many bytes is small enough to be evaluated."""
        return Goal(max_size_mb=self.max_size_mb).fits(size_bytes)


@dataclass(frozen=True)
class Stop:
    """Why evaluation stops.

    Attributes:
        reason: In words.
        at_least: Drop that the model has at least.
    """

    reason: str
    at_least: float


def patience(source: str, goal: Goal, trials: Iterable[TrialRecord], *, labelled: bool) -> Patience | None:
    """Return how bad a trial may be before its evaluation ends; ``None``: it is evaluated to the end in any case.

    Args:
        source: Of the trial.
        goal: The request's goal.
        trials: All trials of the job so far.
        labelled: Whether quality is a labelled metric.
    """
    if source in ALWAYS_WHOLE:
        return None
    curve = drop_model(trials).curve if labelled else None
    return Patience(max_size_mb=goal.max_size_mb, max_drop=goal.max_drop, curve=curve)


def drop_model(trials: Iterable[TrialRecord]) -> DropModel:
    """Return what changed predictions cost in a job.

    What was given up early says nothing about it: by the labels of so few texts, the same ones for all of these, a
    curve would be steep or flat by luck, and by a steep one more would be given up.
    """
    return DropModel(trial.evidence for trial in trials if trial.evidence is not None and not trial.stopped)


def hopeless(look: FirstLook, allowed: Patience) -> Stop | None:
    """Return why a candidate is not evaluated any further, or ``None`` if it is.

    Beyond twice the goal's drop no model is shown in the front nor becomes a finalist. A candidate is given up if it
    lies there even at the lower end of the interval of its change, and even if that change costs two standard
    deviations less than it does in the job's other models.

    A model is broken that clearly changes so much that nothing is known about such models, and is no nearer to the
    dense one than the best constant: neither in its probabilities nor, by the upper end of the interval, in its
    predictions.

    Args:
        look: What the first part says.
        allowed: How bad it may be.
    """
    part = f"on the first {look.examples} of {look.of} texts"
    change = look.change
    at_least = change.low if allowed.curve is None else least_drop(allowed.curve, change.low)
    if allowed.max_drop is not None and at_least > quality_limit(allowed.max_drop):
        found = f"{change.value:.1%} of the answers change {part} (at least {change.low:.1%})"
        cost = f"costs at least {at_least:.1%} of quality; the goal allows {allowed.max_drop:.1%}"
        return Stop(f"not measured: {found}, which {cost}", at_least)
    no_better = look.divergence >= look.constant_divergence and change.high >= look.constant_change
    if no_better and change.low > LARGEST_CHANGE:
        return Stop(f"not measured: no nearer to the dense model {part} than one constant answer", at_least)
    return None


def stop_of(facts: JsonObject) -> Stop | None:
    """Return why a trial was given up after the first part, from its row's ``facts``; ``None`` if it was not."""
    stopped = (facts.get("first_part") or {}).get("stopped")
    return None if stopped is None else Stop(stopped["reason"], stopped["at_least"])
