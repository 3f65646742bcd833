"""The picture of a front as numbers: drawn as SVG by a template and as PNG by :mod:`api.reports.drawing`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from api.reports.axes import Axis
from profilers.types import Estimate
from search.objectives import WORDINGS
from search.objectives import Wording
from search.views import ReportView
from search.views import TrialView

POINTS = 100
"""A drop of 0.01 is one point."""


@dataclass(frozen=True)
class Mark:
    """One model in the picture.

    Attributes:
        kind: Of the front, a baseline, or tried without getting into the front.
        number: The trial's number.
        name: The model's name.
        speedup: Against fp32 by the job's objective, with its interval.
        drop: What was seen, in points, with its interval.
        expected: The drop to be expected of more examples, in points: what decides about the front.
        best: Whether it is the best model by the job's goal.
    """

    kind: Literal["front", "baseline", "tried"]
    number: int
    name: str
    speedup: Estimate
    drop: Estimate
    expected: float
    best: bool


@dataclass(frozen=True)
class Chart:
    """Speed-up to the right, loss of quality downwards: the better a model is, the further up and right it is.

    Attributes:
        objective: What the speed-up is about.
        front: Fastest first.
        baselines: What could be had in one line.
        tried: Other measured models that lie within the range.
        outside: Number of other measured models that do not.
        speedup: The horizontal axis.
        drop: The vertical axis, in points.
        most_drop: The goal's limit in points, if it has one.
    """

    objective: Wording
    front: tuple[Mark, ...]
    baselines: tuple[Mark, ...]
    tried: tuple[Mark, ...]
    outside: int
    speedup: Axis
    drop: Axis
    most_drop: float | None

    @property
    def staircase(self) -> list[tuple[float, float]]:
        """Corners (speed-up, expected drop) of the best that there is at each speed-up, slowest first.

        Models that are on the front for their size only are not on it.
        """
        corners: list[tuple[float, float]] = []
        for mark in sorted(self.front, key=lambda mark: (-mark.speedup.value, mark.expected)):
            if not corners:
                corners.append((mark.speedup.value, mark.expected))
            elif mark.expected < corners[-1][1]:
                corners += [(mark.speedup.value, corners[-1][1]), (mark.speedup.value, mark.expected)]
        return corners[::-1]

    @property
    def summary(self) -> str:
        """The picture in words, for those who do not see it."""
        count = f"{len(self.front)} models on the front, {len(self.baselines)} baselines"
        models = ", ".join(
            f"{mark.name}: {mark.speedup.value:.2f} {self.objective.unit}, {mark.expected:+.2f} points of loss expected"
            for mark in (*self.front, *self.baselines)
        )
        return f"{count}. {models}" if models else count


def chart_of(report: ReportView) -> Chart:
    """Return the picture of a job's front, scaled to the front and the baselines."""
    best = report.front.best.id if report.front.best else None
    front = _marks(report.front.points, "front", best)
    baselines = _marks(report.front.baselines, "baseline", best)
    tried = _marks(report.others, "tried", best)
    shown = (*front, *baselines) or tried
    limit = (report.request.get("goal") or {}).get("max_drop")
    most_drop = None if limit is None else POINTS * limit
    speedup = Axis.over(value for mark in shown for value in (mark.speedup.low, mark.speedup.high))
    drops = [value for mark in shown for value in (mark.drop.low, mark.drop.high, mark.expected)]
    drop = Axis.over([*drops, 0.0, most_drop or 0.0])
    inside = tuple(mark for mark in tried if speedup.shows(mark.speedup.value) and drop.shows(mark.expected))
    return Chart(
        WORDINGS[report.front.objective], front, baselines, inside, len(tried) - len(inside), speedup, drop, most_drop
    )


def _marks(
    trials: Sequence[TrialView], kind: Literal["front", "baseline", "tried"], best: str | None
) -> tuple[Mark, ...]:
    return tuple(
        Mark(
            kind,
            trial.number,
            trial.name,
            trial.latency.speedup,
            scaled(trial.quality.drop),
            POINTS * trial.quality.expected_drop,
            trial.id == best,
        )
        for trial in trials
        if trial.latency and trial.quality
    )


def scaled(estimate: Estimate, factor: float = POINTS) -> Estimate:
    """Return an estimate in another unit."""
    return Estimate(value=factor * estimate.value, low=factor * estimate.low, high=factor * estimate.high)
