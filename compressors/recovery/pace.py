"""How a student trains fastest on this machine: in how many threads, and in which arithmetic.

A pruned student is small: on many cores its threads wait for each other, and conversions to bf16 may take what the
products save. What is fastest depends on shape and machine, so it is timed.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_THREADS = 2
GAIN = 0.95
"""Another pace is taken where a step takes at most this part of the time: less may be noise."""


@dataclass(frozen=True)
class Pace:
    """How steps are computed.

    Attributes:
        threads: Threads of torch.
        precision: ``f32`` or ``bf16``: arithmetic of the products.
    """

    threads: int
    precision: str


def fastest(
    threads: int,
    precisions: Sequence[str],
    step_seconds: Callable[[Pace], float],
    *,
    fewest: int = FEWEST_THREADS,
) -> tuple[Pace, float]:
    """Return the fastest pace and the seconds of its step.

    Threads are halved as long as that helps, then the other precisions are tried.

    Args:
        threads: As many as there may be.
        precisions: Those that may be used, the usual one first.
        step_seconds: Times a step.
        fewest: No fewer threads are tried.
    """
    best = Pace(threads, precisions[0])
    seconds = step_seconds(best)
    while best.threads // 2 >= fewest:
        fewer = Pace(best.threads // 2, best.precision)
        taken = step_seconds(fewer)
        if taken > GAIN * seconds:
            break
        best, seconds = fewer, taken
    for precision in precisions[1:]:
        other = Pace(best.threads, precision)
        taken = step_seconds(other)
        if taken <= GAIN * seconds:
            best, seconds = other, taken
    return best, seconds
