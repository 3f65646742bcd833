"""Learning curves whose ends are known."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies

from compressors.recovery.learning_curve import CurveSample
from compressors.recovery.learning_curve import extrapolate


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
