"""Blocks: the unit of a paired measurement. Every contestant has its turn in each block, in random order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profilers.protocol import BlockSamples
from profilers.protocol import Handle
from profilers.protocol import Session
from profilers.protocol import Visit
from profilers.types import Statistic

MIN_BURST_NS = 5_000_000
"""A visit repeats the model until it takes this long: below it, timer and call overheads are felt."""
MAX_BURST_RUNS = 10_000

LEAD_IN_NS = 10_000_000
"""A visit starts with untimed runs for about this long, at least one and at most as many as needed to fill the caches.

A served model finds its weights in the caches; in a block, it runs after another one. Without a lead-in, a 4 MB model
that was visited twice in a block seemed 5 to 10 % faster than an equal one that was visited once, and an int8 encoder
5 % slower than it is.
"""
MAX_LEAD_IN_RUNS = 10

SINGLE_RUNS: dict[Statistic, int] = {"p90": 8, "p99": 20}
"""Runs of each contestant in a block that are timed one by one: the mean over a burst has lost its tail."""
SINGLE_NS = 150_000_000
"""They take at most about this long, so that blocks stay short against whatever drifts."""

MAX_LOST_SHARE = 0.02
"""A block is dropped if more than this share of it was lost to waiting for a core or to the hypervisor ..."""
SHORT_VISIT_NS = 20_000_000
"""... or if a visit shorter than this was preempted: the caches are cold afterwards, which the clock does not show."""


def burst_runs(median_ns: float) -> int:
    """Return how many runs a visit needs."""
    return int(np.clip(np.ceil(MIN_BURST_NS / max(median_ns, 1.0)), 1, MAX_BURST_RUNS))


def lead_in_runs(median_ns: float) -> int:
    """Return how many untimed runs come before."""
    return int(np.clip(np.ceil(LEAD_IN_NS / max(median_ns, 1.0)), 1, MAX_LEAD_IN_RUNS))


def single_runs(median_ns: float, statistic: Statistic) -> int:
    """Return how many runs of a block are timed one by one; 1 where a burst is timed as a whole."""
    return int(np.clip(SINGLE_NS / max(median_ns, 1.0), 1, SINGLE_RUNS.get(statistic, 1)))


def is_clean(samples: BlockSamples) -> bool:
    """Apply the clean-block rule. It looks at the whole block, never at which contestant was slow."""
    if samples.disturbed:
        return False
    lost = int(samples.waited_ns.sum()) + samples.stolen_ns
    if lost > MAX_LOST_SHARE * int(samples.elapsed_ns.sum()):
        return False
    return not bool(np.any((samples.preempted > 0) & (samples.elapsed_ns < SHORT_VISIT_NS)))


@dataclass(frozen=True)
class Contestant:
    """Someone who runs in the blocks.

    Attributes:
        name: unique.
        handle: what is run.
        runs: timed consecutive runs in a visit.
        lead_in: untimed runs before them.
        visits: consecutive visits in a block, each timed by itself.
    """

    name: str
    handle: Handle
    runs: int
    lead_in: int
    visits: int = 1

    @classmethod
    def of(cls, name: str, handle: Handle, median_ns: float, statistic: Statistic) -> "Contestant":
        """Return a contestant whose one run takes ``median_ns``, visited as the statistic wants it."""
        runs = 1 if statistic in SINGLE_RUNS else burst_runs(median_ns)
        return cls(name, handle, runs, lead_in_runs(median_ns), single_runs(median_ns, statistic))

    @property
    def plan(self) -> list[Visit]:
        """What a block asks for."""
        return [Visit(self.handle, self.runs, self.lead_in), *[Visit(self.handle, self.runs)] * (self.visits - 1)]


@dataclass(frozen=True)
class Block:
    """One executed block.

    Attributes:
        names: contestants in the order in which they ran.
        run_ns: mean time of one run of each, shape ``[contestants]``.
        cpu_ns: CPU time of one run of each, shape ``[contestants]``.
        visits_ns: time of one run in each visit, one array ``[visits]`` for each contestant.
        lost_ns: time lost to waiting and to the hypervisor in the whole block.
        preempted: involuntary context switches in the whole block.
        clean: whether the block counts.
    """

    names: tuple[str, ...]
    run_ns: NDArray[np.float64]
    cpu_ns: NDArray[np.float64]
    visits_ns: tuple[NDArray[np.float64], ...]
    lost_ns: int
    preempted: int
    clean: bool

    def time_of(self, name: str) -> float | None:
        """Return the time of one run in nanoseconds; ``None`` if this contestant was not in the block."""
        return float(self.run_ns[self.names.index(name)]) if name in self.names else None

    def visits_of(self, name: str) -> NDArray[np.float64]:
        """Return the times of one run in nanoseconds, ``[visits]``; the contestant must have been in the block."""
        return self.visits_ns[self.names.index(name)]


def run_block(session: Session, contestants: Sequence[Contestant], rng: np.random.Generator) -> Block:
    """Let every contestant run, in random order."""
    order = [contestants[index] for index in rng.permutation(len(contestants))]
    samples = session.sample([visit for contestant in order for visit in contestant.plan])
    ends = np.cumsum([contestant.visits for contestant in order])[:-1]
    runs = np.concatenate([np.full(contestant.visits, float(contestant.runs)) for contestant in order])
    visits = np.split(samples.elapsed_ns / runs, ends)
    return Block(
        names=tuple(contestant.name for contestant in order),
        run_ns=np.array([part.mean() for part in visits]),
        cpu_ns=np.array([part.mean() for part in np.split(samples.cpu_ns / runs, ends)]),
        visits_ns=tuple(visits),
        lost_ns=int(samples.waited_ns.sum()) + samples.stolen_ns,
        preempted=int(samples.preempted.sum()),
        clean=is_clean(samples),
    )
