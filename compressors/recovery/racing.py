"""Which candidate is worth a full recovery: short trainings, learning curves, successive halving. No torch.

Successive halving (Jamieson and Talwalkar, arXiv 1502.07943): everyone trains a little, the better part trains on.
What is compared is not the score so far but the score that the curve promises for the full budget.
"""

import math
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Generic
from typing import TypeVar

from compressors.recovery.learning_curve import CurveSample
from compressors.recovery.learning_curve import Estimate
from compressors.recovery.learning_curve import extrapolate

Key = TypeVar("Key", bound=Hashable)


@dataclass
class Contender(Generic[Key]):
    """A candidate in a race."""

    key: Key
    cost: float
    """What is minimised among those that are good enough: predicted latency, say."""
    curve: list[CurveSample] = field(default_factory=list)
    estimate: Estimate = field(default_factory=lambda: Estimate(-math.inf, -math.inf, math.inf))
    """Score that is expected after the full budget."""
    rounds: int = 0
    """Rounds that it took part in."""

    @property
    def seconds(self) -> float:
        """Training time that it has had."""
        return self.curve[-1].seconds if self.curve else 0.0


Ranking = Callable[[Sequence[Contender[Key]]], list[Contender[Key]]]


def by_score(contenders: Sequence[Contender[Key]]) -> list[Contender[Key]]:
    """Best predicted score first; ties go to the cheaper one."""
    return sorted(contenders, key=lambda one: (-one.estimate.value, one.cost))


def cheapest_within(limit: float) -> Callable[[Sequence[Contender[Key]]], list[Contender[Key]]]:
    """Return the ranking for "as cheap as possible at a score of at least ``limit``".

    A contender counts with the probability that it will reach the limit (a normal distribution over its range). First
    come those that more likely than not reach it, the cheapest in front; then the others, the most likely in front.
    """

    def rank(contenders: Sequence[Contender[Key]]) -> list[Contender[Key]]:
        def order(one: Contender[Key]) -> tuple[bool, float, float]:
            chance = _chance(one.estimate, limit)
            return (chance < 0.5, one.cost if chance >= 0.5 else -chance, -chance)

        return sorted(contenders, key=order)

    return rank


def _chance(estimate: Estimate, limit: float) -> float:
    width = estimate.value - estimate.low
    if width <= 0 or not math.isfinite(width):
        return float(estimate.value >= limit)
    return 0.5 * math.erfc((limit - estimate.value) / (width / 1.645) / math.sqrt(2))


@dataclass(frozen=True)
class RaceRound:
    """One round of a race."""

    contenders: int
    seconds: float
    """Training time of each of them in this round."""


def plan_rounds(contenders: int, seconds: float, *, reduction: float = 3.0, shortest: float = 10.0) -> list[RaceRound]:
    """Divide a budget: each round takes an equal share of it, and each has ``1 / reduction`` of the contenders before.

    Args:
        contenders: at the start.
        seconds: budget of the race in all.
        reduction: how many of those in a round there are for each one in the next.
        shortest: least useful training time. Where the first round would give less, fewer contenders start.

    Raises:
        ValueError: no contender, or no time for even one.
    """
    if contenders < 1 or seconds < shortest or reduction <= 1:
        raise ValueError("a race needs a contender, the time to train it, and a reduction above one")
    while True:
        counts = [contenders]
        while counts[-1] > 1:
            counts.append(max(1, math.floor(counts[-1] / reduction)))
        share = seconds / len(counts)
        if contenders == 1 or share / contenders >= shortest:
            return [RaceRound(count, share / count) for count in counts]
        contenders -= 1


def race(
    contenders: Sequence[Contender[Key]],
    seconds: float,
    train: Callable[[Key, float], CurveSample],
    rank: Ranking[Key],
    *,
    full_seconds: float,
    reduction: float = 3.0,
    shortest: float = 10.0,
    ceiling: float = math.inf,
    noise: float = 0.0,
    should_stop: Callable[[], bool] | None = None,
) -> list[Contender[Key]]:
    """Train many a little and few a lot, and return all, best first.

    Args:
        contenders: best guesses first: where the time does not suffice for all, the last ones do not start.
        seconds: budget of the race.
        train: trains one for so many more seconds, and returns its time so far and its score, higher is better.
        rank: puts contenders in order, best first: :func:`by_score`, or :func:`cheapest_within` a limit.
        full_seconds: training time that scores are predicted for.
        reduction: see :func:`plan_rounds`.
        shortest: see :func:`plan_rounds`.
        ceiling: see :func:`compressors.recovery.learning_curve.extrapolate`.
        noise: see :func:`compressors.recovery.learning_curve.extrapolate`.
        should_stop: polled before every training; the ranking so far is returned when it is true.

    Returns:
        Those of the last round in order, then those of the round before, and so on.
    """
    left = list(contenders)
    finished: list[Contender[Key]] = []
    for planned in plan_rounds(len(left), seconds, reduction=reduction, shortest=shortest):
        left, out = left[: planned.contenders], left[planned.contenders :]
        finished = out + finished
        for one in left:
            if should_stop is not None and should_stop():
                return rank([each for each in left if each.curve]) + [e for e in left if not e.curve] + finished
            one.curve.append(train(one.key, planned.seconds))
            one.rounds += 1
            goal = max(full_seconds, one.seconds)
            one.estimate = extrapolate(one.curve, goal, ceiling=ceiling, noise=noise)
        left = rank(left)
    return left + finished
