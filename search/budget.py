"""How much of a job's budget is left, and how much of it the finish needs."""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from search.requests import Budget

FINALISTS = 8
LARGEST_RESERVE = 0.4
"""Part of the total time that the final measurements may take."""
CONFIRM_OVER_TRIAL = 3.0
"""A confirmation repeats evaluation and measurement in several fresh processes."""
FIRST_GUESS_SECONDS = 5.0
"""What a trial takes, before any has finished."""


@dataclass(frozen=True)
class BudgetState:
    """Where a job stands in its budget.

    Attributes:
        elapsed: Seconds since the job started.
        remaining: Seconds until its time is over; infinite without a time limit.
        reserve: Seconds kept for the final measurements.
        trials: Trials that count against the limit (baselines do not).
        trial_limit: The limit, if there is one.
    """

    elapsed: float
    remaining: float
    reserve: float
    trials: int
    trial_limit: int | None

    @property
    def search_is_over(self) -> bool:
        """Whether no further trial may begin."""
        return self.remaining <= self.reserve or self.trials_left <= 0

    @property
    def overdue(self) -> bool:
        """Whether even trials that are under way must be given up for the sake of the finish."""
        return self.remaining <= self.reserve / 2

    @property
    def trials_left(self) -> float:
        """Trials that may still begin."""
        return float("inf") if self.trial_limit is None else self.trial_limit - self.trials

    @property
    def progress(self) -> float:
        """Used part of the search budget, 0 to 1."""
        parts = [0.0]
        if self.remaining != float("inf"):
            parts.append(self.elapsed / max(1e-9, self.elapsed + self.remaining - self.reserve))
        if self.trial_limit:
            parts.append(self.trials / self.trial_limit)
        return min(1.0, max(parts))


def budget_state(
    job: Job, budget: Budget, trials: Sequence[Trial], steps: Iterable[Step], now: datetime
) -> BudgetState:
    """Read the state of a job's budget from its rows."""
    elapsed = max(0.0, (now - (job.started_at or job.created_at)).total_seconds())
    remaining = float("inf") if budget.seconds is None else budget.seconds - elapsed
    reserve = 0.0
    if budget.seconds is not None:
        baselines = sum(trial.source == "baseline" for trial in trials)
        wanted = (FINALISTS + baselines) * confirm_seconds(steps)
        reserve = min(wanted, LARGEST_RESERVE * budget.seconds)
    counted = sum(trial.source != "baseline" for trial in trials)
    return BudgetState(elapsed, remaining, reserve, counted, budget.trials)


def confirm_seconds(steps: Iterable[Step]) -> float:
    """Expected seconds of one confirmation, from what evaluations and measurements took so far."""
    known = list(steps)
    trial = sum(_typical(known, kind) for kind in ("evaluate", "measure"))
    return CONFIRM_OVER_TRIAL * (trial or FIRST_GUESS_SECONDS)


def _typical(steps: list[Step], kind: str) -> float:
    durations = [
        (step.finished_at - step.started_at).total_seconds()
        for step in steps
        if step.kind == kind and step.state == "done" and step.started_at and step.finished_at
    ]
    return median(durations) if durations else 0.0
