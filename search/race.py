"""The race of the shapes in recovery training, replayed from what has happened: pure decisions, no rows.

Successive halving: every shape trains a little; the one whose learning curve promises the most for the goal gets the
rest of the time. A training is never decided twice: the same outcomes give the same next training.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from compressors.recovery.learning_curve import CurveSample
from compressors.recovery.learning_curve import Estimate
from compressors.recovery.learning_curve import extrapolate
from compressors.recovery.racing import Contender
from compressors.recovery.racing import RaceRound
from compressors.recovery.racing import Ranking
from compressors.recovery.racing import by_score
from compressors.recovery.racing import cheapest_within
from compressors.recovery.racing import plan_rounds
from search.requests import Goal

SHORTEST_SECONDS = 10.0
"""Least useful training time, where the budget has as much."""
REDUCTION = 3.0


@dataclass(frozen=True)
class Outcome:
    """What one training has brought.

    Attributes:
        failed: It could not be done; the shape is out.
        weights: sha256 of the trained weights.
        drop: Loss of quality on the search split in the best number format; ``None``: it could not be evaluated.
        drop_error: Standard error of ``drop``.
        curve: ``(seconds, score)`` on held-back training texts; scores are at most zero, which is a perfect copy.
    """

    failed: bool
    weights: str | None = None
    drop: float | None = None
    drop_error: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()


Place = tuple[int, int]
"""Number of a round, and of a shape."""


@dataclass(frozen=True)
class Training:
    """What is to be done next.

    Attributes:
        place: Round and shape.
        weights: Trained weights to go on from.
        seconds: Planned training time.
        last: It is the only one of the last round: it may have all the time that is left.
    """

    place: Place
    weights: str | None
    seconds: float
    last: bool


def plan(shapes: int, seconds: float, goal: Goal) -> list[RaceRound]:
    """Divide the training time. Without a goal no shape is better than another: all get the same.

    Raises:
        ValueError: There is no shape, or no time.
    """
    shortest = min(SHORTEST_SECONDS, seconds)
    if goal.max_drop is None and goal.max_latency_ms is None:
        starters = max(1, min(shapes, int(seconds / shortest)))
        return [RaceRound(starters, seconds / starters)]
    return plan_rounds(shapes, seconds, reduction=REDUCTION, shortest=shortest)


def next_training(
    costs: Sequence[float], rounds: Sequence[RaceRound], outcomes: Mapping[Place, Outcome], goal: Goal
) -> Training | None:
    """Return the next training, or ``None`` when the race is over.

    Args:
        costs: Predicted latency ratio of each shape.
        rounds: From :func:`plan`.
        outcomes: Of the trainings so far.
        goal: Decides who goes on: with a maximum drop the fastest shape that is expected to keep to it, else the one of
            the best expected quality.
    """
    full_seconds = sum(entry.seconds for entry in rounds)
    left: list[Contender[int]] = [Contender(number, cost) for number, cost in enumerate(costs)]
    weights: dict[int, str] = {}
    for number, entry in enumerate(rounds):
        alive = []
        for one in left[: entry.contenders]:
            place = (number, one.key)
            outcome = outcomes.get(place)
            if outcome is None:
                last = number == len(rounds) - 1 and entry.contenders == 1
                return Training(place, weights.get(one.key), entry.seconds, last)
            if outcome.failed or outcome.weights is None:
                continue
            weights[one.key] = outcome.weights
            one.estimate = expectation(outcome, full_seconds)
            one.rounds += 1
            alive.append(one)
        left = _ranking(goal)(alive)
    return None


def expectation(outcome: Outcome, seconds: float) -> Estimate:
    """Return minus the drop that is expected after ``seconds`` of training, with a 90 % range.

    The drop is expected to shrink as the distance from the dense model does, whose curve is known much better.
    """
    if outcome.drop is None:
        return Estimate(float("-inf"), float("-inf"), float("inf"))
    margin = 1.645 * outcome.drop_error
    points = [CurveSample(*point) for point in outcome.curve]
    now = max((point.score for point in points), default=0.0)
    if outcome.drop <= 0 or now >= 0:
        return Estimate(-outcome.drop, -outcome.drop - margin, -outcome.drop + margin)
    later = extrapolate(points, max(seconds, points[-1].seconds), ceiling=0.0)
    value, low, high = (-outcome.drop * score / now for score in (later.value, later.low, later.high))
    return Estimate(value, min(low, value) - margin, max(high, value) + margin)


def _ranking(goal: Goal) -> Ranking[int]:
    return by_score if goal.max_drop is None else cheapest_within(-goal.max_drop)
