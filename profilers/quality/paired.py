"""Statistics of a candidate against the dense model on the same examples."""

import math

import numpy as np
from numpy.typing import NDArray

from profilers.types import Estimate

Floats = NDArray[np.float64]

RESAMPLES = 2000


def bootstrap_mean(scores: Floats, seed: int = 0) -> Estimate:
    """Return the mean of ``scores`` with its 95 % percentile bootstrap interval over examples."""
    return _interval(scores, seed)


def bootstrap_drop(dense: Floats, candidate: Floats, seed: int = 0) -> Estimate:
    """Return mean(dense - candidate) with its interval; both are ``[examples]`` and resampled together."""
    return _interval(dense - candidate, seed)


def mcnemar_p(dense: Floats, candidate: Floats) -> float:
    """Return the exact two-sided p-value of McNemar's test for two 0/1 scores on the same examples."""
    lost = int(((dense == 1) & (candidate == 0)).sum())
    won = int(((dense == 0) & (candidate == 1)).sum())
    discordant = lost + won
    if discordant == 0:
        return 1.0
    tail = sum(math.comb(discordant, k) for k in range(min(lost, won) + 1)) / 2**discordant
    return min(1.0, 2 * tail)


def _interval(values: Floats, seed: int) -> Estimate:
    mean = float(values.mean())
    if len(values) < 2 or float(values.std()) == 0.0:
        return Estimate(value=mean, low=mean, high=mean)
    generator = np.random.default_rng(seed)
    picks = generator.integers(0, len(values), size=(RESAMPLES, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [0.025, 0.975])
    return Estimate(value=mean, low=min(float(low), mean), high=max(float(high), mean))
