"""Learning curves and races, on synthetic curves whose ends are known."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies

from compressors.recovery.learning_curve import CurveSample
from compressors.recovery.learning_curve import Estimate
from compressors.recovery.learning_curve import extrapolate
from compressors.recovery.racing import Contender
from compressors.recovery.racing import by_score
from compressors.recovery.racing import cheapest_within
from compressors.recovery.racing import plan_rounds
from compressors.recovery.racing import race


def healing(limit: float, gap: float, rate: float, seconds: float) -> float:
    return limit - gap * (seconds / 10) ** -rate


def sample(limit: float, gap: float, rate: float, times: tuple[float, ...], noise: float = 0.0, seed: int = 0):
    generator = random.Random(seed)
    return [CurveSample(t, healing(limit, gap, rate, t) + generator.gauss(0, noise)) for t in times]


@pytest.mark.parametrize("rate", [0.2, 0.5, 1.0])
def test_the_end_of_a_healing_curve_lies_in_the_predicted_range(rate: float) -> None:
    covered = 0
    for seed in range(50):
        curve = sample(-0.1, 0.5, rate, (20, 60, 120, 200), noise=0.01, seed=seed)
        estimate = extrapolate(curve, 900, ceiling=0.0, noise=0.01)
        covered += estimate.low <= healing(-0.1, 0.5, rate, 900) <= estimate.high
    assert covered >= 35


@given(
    scores=strategies.lists(strategies.floats(-10, 0), min_size=1, max_size=6),
    ahead=strategies.floats(0, 1e4),
    noise=strategies.floats(0, 1),
)
def test_predictions_are_ordered_capped_and_never_fall_with_time(
    scores: list[float], ahead: float, noise: float
) -> None:
    curve = [CurveSample(10.0 * (index + 1), score) for index, score in enumerate(scores)]
    now = curve[-1].seconds
    near = extrapolate(curve, now + ahead, ceiling=0.0, noise=noise)
    far = extrapolate(curve, now + 2 * ahead + 1, ceiling=0.0, noise=noise)
    assert near.low <= near.value <= near.high <= 0.0
    assert far.value >= near.value - 1e-9


def test_more_points_make_the_range_narrower() -> None:
    times = (10, 30, 90, 270)
    widths = []
    for count in (2, 4):
        estimate = extrapolate(sample(-0.1, 0.4, 0.5, times[:count]), 900)
        widths.append(estimate.high - estimate.low)
    assert widths[1] < widths[0]


def test_a_curve_out_of_order_is_refused() -> None:
    with pytest.raises(ValueError, match="increasing"):
        extrapolate([CurveSample(2, 0.0), CurveSample(1, 0.0)], 10)


@given(contenders=strategies.integers(1, 40), seconds=strategies.floats(10, 5000), reduction=strategies.floats(1.5, 4))
def test_the_rounds_spend_the_budget_and_give_everyone_a_useful_time(
    contenders: int, seconds: float, reduction: float
) -> None:
    rounds = plan_rounds(contenders, seconds, reduction=reduction, shortest=10)
    assert sum(one.contenders * one.seconds for one in rounds) == pytest.approx(seconds)
    assert all(one.seconds >= 10 - 1e-9 for one in rounds)
    assert rounds[-1].contenders == 1 or len(rounds) == 1
    assert all(a.contenders > b.contenders for a, b in itertools.pairwise(rounds))


class Track:
    """Contenders with known curves; counts what is trained."""

    def __init__(self, curves: dict[str, tuple[float, float, float]], noise: float = 0.0) -> None:
        self.curves, self.noise, self.trained = curves, noise, dict.fromkeys(curves, 0.0)
        self.generator = random.Random(0)

    def train(self, key: str, seconds: float) -> CurveSample:
        self.trained[key] += seconds
        score = healing(*self.curves[key], self.trained[key]) + self.generator.gauss(0, self.noise)
        return CurveSample(self.trained[key], score)


def test_the_race_finds_the_best_and_spends_most_time_on_it() -> None:
    track = Track({f"c{i}": (-0.1 - 0.05 * i, 0.5, 0.5) for i in range(9)}, noise=0.01)
    entrants = [Contender(key, 1.0) for key in reversed(track.curves)]
    result = race(entrants, 900, track.train, by_score, full_seconds=900, ceiling=0.0, noise=0.01)
    assert result[0].key == "c0"
    assert sum(track.trained.values()) == pytest.approx(900)
    assert track.trained["c0"] == max(track.trained.values())
    assert {one.key for one in result} == set(track.curves)


def test_a_slow_healer_that_ends_better_overtakes_a_quick_one() -> None:
    track = Track({"quick": (-0.30, 0.05, 1.0), "slow": (-0.05, 0.6, 0.4)})
    entrants = [Contender(key, 1.0) for key in track.curves]
    for one in entrants:
        for seconds in (10.0, 20.0, 40.0):
            one.curve.append(track.train(one.key, seconds))
    quick, slow = (one.curve[-1].score for one in entrants)
    assert quick > slow
    for one in entrants:
        one.estimate = extrapolate(one.curve, 900)
    assert by_score(entrants)[0].key == "slow"


def test_the_cheapest_that_will_be_good_enough_wins() -> None:
    track = Track({"large": (-0.05, 0.3, 0.5), "middle": (-0.08, 0.3, 0.5), "small": (-0.4, 0.3, 0.5)})
    entrants = [Contender("small", 1.0), Contender("middle", 2.0), Contender("large", 3.0)]
    result = race(entrants, 600, track.train, cheapest_within(-0.2), full_seconds=600, reduction=2.0)
    assert result[0].key == "middle"


def test_a_stopped_race_returns_everyone() -> None:
    track = Track({"a": (-0.1, 0.5, 0.5), "b": (-0.2, 0.5, 0.5), "c": (-0.3, 0.5, 0.5)})
    calls = iter([False, False, True])
    entrants = [Contender(key, 1.0) for key in ("c", "b", "a")]
    result = race(entrants, 300, track.train, by_score, full_seconds=300, should_stop=lambda: next(calls))
    assert [one.key for one in result] == ["b", "c", "a"]
    assert result[2].estimate == Estimate(-math.inf, -math.inf, math.inf)
