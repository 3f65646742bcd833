"""The ratio of a quantile or of a mean over all runs of two models that were timed in the same blocks.

The median of the blocks' ratios (:mod:`profilers.statistics`) says nothing about tails, and a tail is seldom met in one
block: here the runs of all blocks are pooled. Blocks stay the unit that is resampled, both models' runs of a block
together, so that what slowed both down at the time still cancels in each resample, and the runs of a block, which
resemble each other, are not taken for independent.
"""

import math

import numpy as np

from profilers.statistics import Floats
from profilers.statistics import Indices
from profilers.statistics import block_length
from profilers.statistics import resampled
from profilers.statistics import stretched_interval
from profilers.types import Estimate
from profilers.types import Statistic

RESAMPLES = 1000
_CHUNK = 4_000_000
"""Numbers that are resampled at a time, at most: 32 MB."""
_QUANTILES: dict[Statistic, float] = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


def level(times: Floats, statistic: Statistic) -> float:
    """Return a statistic of times of any shape."""
    return float(np.mean(times) if statistic == "mean" else np.quantile(times, _QUANTILES[statistic]))


def pooled_ratio(candidate: Floats, reference: Floats, statistic: Statistic, seed: int = 0) -> Estimate:
    """Return ``statistic(candidate) / statistic(reference)`` with its 95 % interval.

    The interval is that of a moving-block bootstrap over the blocks, on the logarithm of the ratio, stretched as in
    :func:`profilers.statistics.median_interval`.

    Args:
        candidate: ``[blocks, visits]``, times in the order of measurement; at least two blocks.
        reference: ``[blocks, visits]``, of the same blocks; the number of visits may differ.
        statistic: What is compared.
        seed: Of the resampling.

    Raises:
        ValueError: Fewer than two blocks.
    """
    count = len(candidate)
    if count < 2:
        raise ValueError("an interval needs at least two blocks")
    middle = math.log(level(candidate, statistic) / level(reference, statistic))
    index = resampled(count, block_length(count), np.random.default_rng(seed), RESAMPLES)
    logs = np.log(_levels(candidate, index, statistic)) - np.log(_levels(reference, index, statistic))
    low, high = stretched_interval(middle, logs, count)
    return Estimate(value=math.exp(middle), low=math.exp(low), high=math.exp(high))


def _levels(times: Floats, index: Indices, statistic: Statistic) -> Floats:
    """Return the statistic of each resample, ``[resamples]``."""
    if statistic == "mean":
        means: Floats = times.mean(axis=1)[index].mean(axis=1)
        return means
    rows = max(1, _CHUNK // (index.shape[1] * times.shape[1]))
    chunks = (times[index[start : start + rows]] for start in range(0, len(index), rows))
    return np.concatenate([np.quantile(chunk, _QUANTILES[statistic], axis=(1, 2)) for chunk in chunks])
