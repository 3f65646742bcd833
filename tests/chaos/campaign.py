"""Faults one after the other, with the invariants checked in between."""

import random
import time
from collections import Counter
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field

from sqlmodel import col
from sqlmodel import select

from infra.database.models import Job
from infra.database.models import Trial
from tests.chaos.cluster import Cluster
from tests.chaos.faults import faults
from tests.chaos.invariants import job_violations
from tests.chaos.invariants import orphan_violations
from tests.chaos.invariants import store_violations

ACTIVE_JOBS = 2
DRAIN_SECONDS = 180.0
_PAUSE_SECONDS = 1.0


@dataclass
class Report:
    """What happened.

    Attributes:
        injected: Faults by name that were tried.
        hit: Those that met a victim.
        jobs: Jobs by end state.
        causes: Why jobs failed.
        trials: Trials by end state.
        violations: Broken invariants, each with the faults that came before it.
        drained: Seconds from the last fault of a round until all jobs had ended.
    """

    injected: Counter[str] = field(default_factory=Counter)
    hit: Counter[str] = field(default_factory=Counter)
    jobs: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    trials: Counter[str] = field(default_factory=Counter)
    stages: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    violations: list[str] = field(default_factory=list)
    drained: list[float] = field(default_factory=list)
    seconds: float = 0.0


class Campaign:
    """Random faults over running jobs.

    Args:
        cluster: A started cluster.
        seed: Chooses jobs, faults and victims; processes are never the same twice, of course.
        tell: Gets a line about every round.
    """

    def __init__(self, cluster: Cluster, seed: int, tell: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._rng = random.Random(seed)
        self._tell = tell
        self._faults = faults(cluster.backend)
        self._bag: list[str] = []
        self._checked: set[str] = set()
        self._stopped = False
        self.report = Report()

    def run(self, count: int, per_round: int, seconds: float) -> Report:
        """Inject ``count`` faults, in rounds; stop early after ``seconds`` or at the first broken invariant."""
        started = time.monotonic()
        left = count
        while left > 0 and not (self.report.violations or self._stopped) and time.monotonic() - started < seconds:
            self._round(min(per_round, left))
            left -= per_round
            self.report.seconds = time.monotonic() - started
        return self.report

    def stop(self) -> None:
        """Stop after the current round."""
        self._stopped = True

    def _round(self, count: int) -> None:
        done = [self._fault() for _ in range(count)]
        began = time.monotonic()
        ended = self._cluster.drain(DRAIN_SECONDS)
        self.report.drained.append(time.monotonic() - began)
        found = [] if ended else [f"jobs have not ended {DRAIN_SECONDS:g} s after the last fault"]
        new = [job for job in self._cluster.jobs if job not in self._checked]
        for job_id in new:
            found += job_violations(self._cluster, job_id)
        self._checked.update(new)
        found += store_violations(self._cluster) if ended else []
        found += orphan_violations(self._cluster)
        self._count(new)
        self.report.violations += [f"{text}\n    after: {', '.join(done)}" for text in found]
        total = sum(self.report.injected.values())
        verdict = "; ".join(found) if found else "all invariants hold"
        self._tell(f"{total} faults, {len(self._checked)} jobs: {verdict}")

    def _fault(self) -> str:
        while len(self._cluster.active()) < ACTIVE_JOBS:
            self._cluster.submit(self._rng)
        if not self._bag:  # every kind comes equally often, in random order
            self._bag = list(self._faults)
            self._rng.shuffle(self._bag)
        name = self._bag.pop()
        self._cluster.sleep(self._rng.uniform(0.0, _PAUSE_SECONDS))
        victim = self._faults[name](self._cluster, self._rng)
        self.report.injected[name] += 1
        self.report.hit[name] += victim is not None
        if name == "cancel" and victim is not None:
            self.report.stages[name].add(victim.removeprefix("stage "))
        return f"{name} ({victim})"

    def _count(self, job_ids: list[str]) -> None:
        with self._cluster.database.read_session() as session:
            jobs = session.exec(select(Job).where(col(Job.id).in_(job_ids))).all()
            trials = session.exec(select(Trial.state).where(col(Trial.job_id).in_(job_ids))).all()
        self.report.jobs.update(job.state for job in jobs)
        self.report.causes.update(str((job.error or {}).get("message")) for job in jobs if job.state == "failed")
        self.report.trials.update(trials)
