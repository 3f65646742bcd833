"""Axes with round ticks."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from math import floor
from math import log10

_STEPS = (1, 2, 2.5, 5, 10)
_MARGIN = 0.07
"""Free room at both ends, as a share of the range."""


@dataclass(frozen=True)
class Axis:
    """A range of values and where its ticks are.

    Attributes:
        low: Smallest value shown.
        high: Largest value shown.
        ticks: Round values between them, ascending.
    """

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Iterable[float], intervals: int = 7) -> "Axis":
        """Return an axis that shows all values with room around them, and about so many ticks."""
        known = list(values) or [0.0, 1.0]
        low, high = min(known), max(known)
        margin = _MARGIN * (high - low) or 0.5
        low, high = low - margin, high + margin
        step = _round_step((high - low) / intervals)
        ticks = tuple(round(number * step, 10) for number in range(ceil(low / step), floor(high / step) + 1))
        return cls(low, high, ticks)

    def share(self, value: float) -> float:
        """Return where a value is, from 0 at the low end to 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def shows(self, value: float) -> bool:
        """Whether a value is in the range."""
        return self.low <= value <= self.high

    def clip(self, value: float) -> float:
        """Return the nearest value in the range."""
        return min(max(value, self.low), self.high)


def _round_step(least: float) -> float:
    power = 10.0 ** floor(log10(least))
    return next(step * power for step in _STEPS if step * power >= least * (1 - 1e-9))
