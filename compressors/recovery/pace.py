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
MOST_BATCHES = 4
"""Batches, from short to long, that a pace is timed on where there is time for it."""


@dataclass(frozen=True)
class Pace:
    """How steps are computed.

    Attributes:
        threads: Threads of torch.
        precision: ``f32`` or ``bf16``: arithmetic of the products.
    """

    threads: int
    precision: str


class Paces:
    """What the trainings of a job have found to be fast.

    Their students are alike, so the last pace is a good first guess for the next one; a student of a shape that was
    timed before needs no other.
    """

    def __init__(self) -> None:
        self._by_shape: dict[str, Pace] = {}
        self._last: Pace | None = None

    def note(self, shape: str, pace: Pace, *, settled: bool) -> None:
        """Remember what was fastest for a shape.

        Args:
            shape: Names the student's structure.
            pace: The fastest of those that were tried.
            settled: Nothing was left out for lack of time.
        """
        self._last = pace
        if settled:
            self._by_shape[shape] = pace

    def known(self, shape: str, threads: int, precisions: Sequence[str]) -> Pace | None:
        """Return what was fastest for a shape; ``None`` where that is not known, or not allowed."""
        found = self._by_shape.get(shape)
        return found if found is not None and found.threads <= threads and found.precision in precisions else None

    def guess(self, threads: int, precisions: Sequence[str]) -> Pace:
        """Return what to try first: as the training before, as far as that is allowed."""
        last = self._last or Pace(threads, precisions[0])
        return Pace(min(last.threads, threads), last.precision if last.precision in precisions else precisions[0])


def fastest(
    first: Pace,
    precisions: Sequence[str],
    step_seconds: Callable[[Pace], float],
    *,
    fewest: int = FEWEST_THREADS,
) -> tuple[Pace, float]:
    """Return the fastest pace and the seconds of its step.

    The other precisions are tried first, because they may save the most; then threads are halved as long as that helps.

    Args:
        first: Where to begin.
        precisions: Those that may be used.
        step_seconds: Times a step.
        fewest: No fewer threads are tried.
    """
    best, seconds = first, step_seconds(first)
    for precision in precisions:
        if precision == first.precision:
            continue
        other = Pace(first.threads, precision)
        taken = step_seconds(other)
        if taken <= GAIN * seconds:
            best, seconds = other, taken
    while best.threads // 2 >= fewest:
        fewer = Pace(best.threads // 2, best.precision)
        taken = step_seconds(fewer)
        if taken > GAIN * seconds:
            break
        best, seconds = fewer, taken
    return best, seconds


def timed_batches(steps: float, precisions: int, *, halving: bool) -> int:
    """Return how many batches each pace is timed on, at least one.

    Args:
        steps: Steps that there is time for in all. Two of them were taken to know that.
        precisions: Arithmetics that are tried. Each takes its batches twice: the first round pays for allocations and
            for kernels that are compiled on first use.
        halving: Whether fewer threads are tried as well.
    """
    rounds = 2 * precisions + int(halving)
    return max(1, min(MOST_BATCHES, int((steps - 2) / rounds)))
