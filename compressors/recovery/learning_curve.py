"""What a learning curve promises for the end of a longer training. Pure arithmetic."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

_EXPONENTS = (0.15, 0.3, 0.5, 0.75, 1.0, 1.5)
"""Rates at which healing slows down: the curve is ``limit - gap * seconds ** -exponent``."""

_NEWEST = 2.0
"""Weight of each point relative to the one before: late points say more about the end."""


@dataclass(frozen=True)
class Estimate:
    """A score that has not been reached yet: the most plausible value, and a 90 % range."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CurveSample:
    """A score after so many seconds of training."""

    seconds: float
    score: float


def extrapolate(
    curve: Sequence[CurveSample], seconds: float, *, ceiling: float = math.inf, noise: float = 0.0
) -> Estimate:
    """Predict the score after ``seconds`` of training from the curve so far.

    Every rate in a fixed set is fitted with a limit and a gap that is never negative, so that a prediction is never
    below the smoothed curve. The fits are averaged by how well they fit. The range covers their disagreement, what
    they leave unexplained, and ``noise``.

    Args:
        curve: at least one point, in the order of time.
        seconds: where to predict; not before the last point.
        ceiling: score that cannot be exceeded, such as the dense model's or that of a perfect copy.
        noise: standard error of a single score.

    Raises:
        ValueError: the curve is empty or not in order.
    """
    if not curve or any(a.seconds >= b.seconds for a, b in itertools.pairwise(curve)):
        raise ValueError("a curve needs at least one point, and increasing times")
    points = [point for point in curve if point.seconds > 0]
    best = max(point.score for point in curve)
    if len(points) < 2:
        high = ceiling if math.isfinite(ceiling) else math.inf
        return Estimate(best, best - 1.645 * noise, max(high, best))
    fits = [_fit(points, exponent, seconds) for exponent in _EXPONENTS]
    scale = max(noise**2, min(error for _, error in fits), 1e-12)
    weights = [math.exp(-0.5 * min(error / scale - 1, 50) * len(points)) for _, error in fits]
    total = sum(weights)
    mean = sum(weight * value for weight, (value, _) in zip(weights, fits, strict=True)) / total
    spread = sum(weight * (value - mean) ** 2 for weight, (value, _) in zip(weights, fits, strict=True)) / total
    residual = sum(weight * error for weight, (_, error) in zip(weights, fits, strict=True)) / total
    deviation = 1.645 * math.sqrt(spread + residual + noise**2)
    value = min(mean, ceiling)
    return Estimate(value, mean - deviation if mean < ceiling else ceiling - deviation, min(mean + deviation, ceiling))


def _fit(points: Sequence[CurveSample], exponent: float, seconds: float) -> tuple[float, float]:
    """Fit ``limit - gap * t ** -exponent``, ``gap >= 0``, by weighted least squares: prediction, mean square error."""
    newest = points[-1].seconds
    xs = [(point.seconds / newest) ** -exponent for point in points]
    ys = [point.score for point in points]
    weights = [_NEWEST**index for index in range(len(points))]
    total = sum(weights)
    x_mean = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    y_mean = sum(w * y for w, y in zip(weights, ys, strict=True)) / total
    variance = sum(w * (x - x_mean) ** 2 for w, x in zip(weights, xs, strict=True))
    covariance = sum(w * (x - x_mean) * (y - y_mean) for w, x, y in zip(weights, xs, ys, strict=True))
    gap = max(0.0, -covariance / variance) if variance > 0 else 0.0
    limit = y_mean + gap * x_mean
    error = sum(w * (y - limit + gap * x) ** 2 for w, x, y in zip(weights, xs, ys, strict=True)) / total
    return limit - gap * (seconds / newest) ** -exponent, error
