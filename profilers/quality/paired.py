"""Paired comparison of two models on the same examples."""

import math

import numpy as np
from numpy.typing import NDArray

from profilers.types import Estimate

Floats = NDArray[np.float64]

_RESAMPLES = 2000
_CHUNK = 4_000_000


def mean_estimate(values: Floats, seed: int = 0, *, lowest: float = -1.0, highest: float = 1.0) -> Estimate:
    """Return the mean of per-example values with its 95 % bootstrap interval over examples.

    For a paired difference of two models pass the per-example differences: what both get right or wrong cancels.

    Values of which there are few distinct ones (0 and 1; -1, 0 and 1) are resampled as counts, which is the same
    distribution and thousands of times faster. Where all values are equal, the interval uses the rule of three: up
    to ``3 / n`` of unseen examples may differ by one unit.

    Args:
        values: Shape ``[examples]``, at least one.
        seed: Of the resampling.
        lowest: Least possible mean; the interval does not go below.
        highest: Largest possible mean.
    """
    count = len(values)
    mean = float(values.mean())
    distinct, frequencies = np.unique(values, return_counts=True)
    if len(distinct) == 1:
        unseen = min(1.0, 3.0 / count)
        return Estimate(value=mean, low=max(lowest, mean - unseen), high=min(highest, mean + unseen))
    rng = np.random.default_rng(seed)
    if len(distinct) <= 8:
        means = rng.multinomial(count, frequencies / count, size=_RESAMPLES) @ distinct / count
    else:
        rows = max(1, _CHUNK // count)
        chunks = [min(rows, _RESAMPLES - start) for start in range(0, _RESAMPLES, rows)]
        means = np.concatenate([values[rng.integers(0, count, (size, count))].mean(axis=1) for size in chunks])
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(value=mean, low=min(float(low), mean), high=max(float(high), mean))


def mcnemar(first: Floats, second: Floats) -> float:
    """Return the two-sided p-value of McNemar's exact test that two models are right equally often.

    Args:
        first: 1 where the first model is right, else 0, ``[examples]``.
        second: The same for the second model.
    """
    gained = int(((first == 0) & (second == 1)).sum())
    lost = int(((first == 1) & (second == 0)).sum())
    discordant = gained + lost
    if discordant == 0:
        return 1.0
    k = np.arange(min(gained, lost) + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, discordant + 1)))])
    terms = factorials[discordant] - factorials[k] - factorials[discordant - k] - discordant * math.log(2)
    peak = float(terms.max())
    return min(1.0, 2.0 * math.exp(peak) * float(np.exp(terms - peak).sum()))
