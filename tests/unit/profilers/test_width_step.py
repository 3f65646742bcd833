"""The step of the width, from times of kernels that are known."""

from math import ceil

import pytest

from profilers.types import Estimate
from profilers.width_step import finest_step

STEPS = (8, 16, 32, 64)
MORE = (8, 16, 24, 32, 64)
BASE = 64


def times(kernel, uncertainty: float = 0.01) -> dict[int, Estimate]:
    """Times relative to the base width's, of a model of which half does not depend on the width."""
    found = {}
    for more in MORE:
        value = 0.5 + 0.5 * kernel(BASE + more) / kernel(BASE)
        found[more] = Estimate(value=value, low=value * (1 - uncertainty), high=value * (1 + uncertainty))
    return found


def filled_up(step: int):
    return lambda width: ceil(width / step) * step


@pytest.mark.parametrize("step", STEPS)
def test_the_step_of_kernels_that_fill_up_is_found(step: int) -> None:
    assert finest_step(times(filled_up(step)), STEPS) == step


def test_time_that_is_linear_rewards_the_finest_step() -> None:
    assert finest_step(times(lambda width: 3 + width), STEPS) == STEPS[0]


def test_a_device_that_does_not_feel_the_width_has_no_step() -> None:
    assert finest_step(times(lambda width: 1), STEPS) is None


def test_what_the_intervals_cannot_tell_apart_is_not_rewarded() -> None:
    """Linear in truth: with wider intervals a coarser step is all that is clear, and in the end nothing."""
    found = [finest_step(times(lambda width: width, uncertainty), STEPS) for uncertainty in (0.01, 0.06, 0.1, 0.5)]
    assert found == [8, 16, 32, None]


def test_little_is_no_reward() -> None:
    """An odd multiple that costs nearly what the next even one does is left out, however well that is known."""

    def kernel(width: int) -> float:
        full = ceil(width / 16) * 16
        return full - 2.0 * (width % 16 == 8)

    assert finest_step(times(kernel, 1e-5), STEPS) == 16
    assert finest_step(times(lambda width: kernel(width) - 2.5 * (width % 16 == 8), 1e-5), STEPS) == 8


def test_an_odd_multiple_may_cost_more_than_the_next_even_one() -> None:
    assert finest_step(times(lambda width: width + 30 * (width % 32 != 0)), STEPS) == 32


def test_widths_that_were_not_timed_prove_nothing() -> None:
    linear = times(lambda width: width)
    assert finest_step({more: linear[more] for more in (16, 32, 64)}, STEPS) == 16
    assert finest_step({64: linear[64]}, STEPS) is None
    assert finest_step({}, STEPS) is None
