"""In which steps a device's kernels reward a narrower matrix: found from the times of a few near widths."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

from profilers.types import Estimate

LEAST_SAVING = 0.25
"""Part of the way from one multiple to the next that a width in the middle has to save at least. It saves half of it
where time is linear in the width, and nothing where kernels fill the matrix up to the next multiple."""


def finest_step(times: Mapping[int, Estimate], steps: Sequence[int]) -> int | None:
    """Return the finest step that is rewarded: its odd multiples cost clearly less than the even ones that follow.

    Args:
        times: Time by how many channels more than a width that is a multiple of all steps, relative to that width's.
        steps: In ascending order, each twice the one before.

    Returns:
        One of ``steps``: the last where all finer ones are clearly not rewarded. ``None`` if the times do not tell.
    """
    known = {0: Estimate(value=1.0, low=1.0, high=1.0), **times}
    middles = [_middle(known, step) for step in steps[:-1]]
    rewarded = [step for step, middle in zip(steps, middles, strict=False) if middle.is_rewarded]
    if rewarded:
        return rewarded[0]
    return steps[-1] if all(middle.is_filled_up for middle in middles) else None


@dataclass(frozen=True)
class _Middle:
    """What widths in the middle between two multiples save against the upper one, and what lies between these.

    Attributes:
        saved: Sum of the savings.
        saved_margin: Half-width of its interval.
        way: Sum of the differences between the multiples.
        way_margin: Half-width of its interval.
    """

    saved: float
    saved_margin: float
    way: float
    way_margin: float

    @property
    def is_rewarded(self) -> bool:
        return self.saved > self.saved_margin and self.saved >= LEAST_SAVING * self.way

    @property
    def is_filled_up(self) -> bool:
        """Whether the multiples differ and it is excluded that time is linear between them."""
        return self.way > self.way_margin and self.saved + self.saved_margin < self.way / 2


def _middle(times: Mapping[int, Estimate], step: int) -> _Middle:
    """Add up over all timed widths that lie in the middle; errors are taken as independent."""
    found = [width for width in times if width % (2 * step) == step and {width - step, width + step} <= times.keys()]
    lower, middle, upper = ([times[width + shift] for width in found] for shift in (-step, 0, step))
    return _Middle(
        saved=_sum(upper) - _sum(middle),
        saved_margin=_margin([*upper, *middle]),
        way=_sum(upper) - _sum(lower),
        way_margin=_margin([*upper, *lower]),
    )


def _sum(times: Sequence[Estimate]) -> float:
    return sum(time.value for time in times)


def _margin(times: Sequence[Estimate]) -> float:
    return hypot(*((time.high - time.low) / 2 for time in times))
