"""Warm-up: run until the time of a run has settled."""

import time

import numpy as np

from profilers.blocks import burst_runs
from profilers.protocol import Handle
from profilers.protocol import Session
from profilers.protocol import Visit

GROUP = 5
AGREEMENT = 0.02
MAX_GROUPS = 10


def warm_up(session: Session, handle: Handle, seconds: float) -> float:
    """Run a handle until the medians of two consecutive groups of five visits agree within 2 %.

    Args:
        session: Executes the runs.
        handle: What to warm up.
        seconds: Time limit; a model that is too slow for even one group within it runs once.

    Returns:
        Median time of one run in the last group, nanoseconds.
    """
    deadline = time.monotonic() + seconds
    median = _median_run(session, handle, visits=1, runs=1)
    if GROUP * median / 1e9 > seconds:
        return median
    previous: float | None = None
    for _ in range(MAX_GROUPS):
        median = _median_run(session, handle, visits=GROUP, runs=burst_runs(median))
        settled = previous is not None and abs(median - previous) <= AGREEMENT * previous
        if settled or time.monotonic() >= deadline:
            break
        previous = median
    return median


def _median_run(session: Session, handle: Handle, *, visits: int, runs: int) -> float:
    samples = session.sample([Visit(handle, runs)] * visits)
    return float(np.median(samples.elapsed_ns)) / runs
