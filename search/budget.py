"""How much of a job's budget is left, and how much of it the finish needs."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

FINALISTS = 6
LARGEST_RESERVE = 0.45
"""Part of the total time that the final measurements may take."""
SHORT_SECONDS = 450.0
"""Jobs of less are short: the search would have no time beside the usual final measurements, so these are of ..."""
SHORT_FINALISTS = 3
SHORT_RESERVE = 0.33
SHORT_AUDITS = 1
LARGEST_LAST_TRIAL = 0.1
"""Part of the total time that is kept for the trial that was begun last."""
SLACK = 0.01
"""Part of the total time that nothing is planned for: steps wait for their worker, and estimates are missed."""
CONFIRM_OVER_TRIAL = 3.0
"""A confirmation repeats evaluation and measurement in several fresh processes."""
AUDIT_SECONDS = 11.0
"""What tracing a small model and racing its two graphs takes; the first one also loads torch's exporter."""
FEW_AUDITS = 3
"""Models that are audited at the end of a short job ..."""
ALL_AUDITS = FINALISTS + 2
"""... and of a long one: the best, the other finalists, and one of the others; the dense model comes on top."""
LONG_SECONDS = 1800.0
LEAST_SEARCH = 0.12
"""Part of the budget that the search has at least where a training follows, however long preparing and learning took:
what trains is chosen among what the search has found ..."""
LARGEST_LOAN = 0.25
"""... and the time comes from the training, at most this part of its own."""
FIRST_GUESS_SECONDS = 5.0
"""What a trial takes, before any has finished."""


@dataclass(frozen=True)
class BudgetState:
    """Where a job stands in its budget.

    Attributes:
        elapsed: Seconds since the job started.
        remaining: Seconds until its time is over; infinite without a time limit.
        reserve: Seconds kept for the final measurements and the audits, and for the trial that was begun last.
        finalists: Models of the front that are measured at the end, at most.
        audits: Models that there is time to audit after those.
        trials: Trials that count against the limit (baselines do not).
        trial_limit: The limit, if there is one.
    """

    elapsed: float
    remaining: float
    reserve: float
    finalists: int
    audits: int
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
    seconds: float | None,
    trials: int | None,
    elapsed: float,
    sources: Sequence[str],
    durations: Mapping[str, Sequence[float]],
    *,
    lent: float = 0.0,
    short: bool = False,
    dense: int = 0,
) -> BudgetState:
    """Return the state of a budget.

    Args:
        seconds: Time for search and final measurements; ``None``: no limit.
        trials: The request's limit.
        elapsed: Seconds since the job started, without those of recovery training.
        sources: Source of each trial so far.
        durations: Seconds that finished ``evaluate`` and ``measure`` steps took; not needed without a time limit.
        lent: Seconds for the search beyond ``seconds``; see :func:`loan`.
        short: The job is a short one (:data:`SHORT_SECONDS`).
        dense: Trials of the dense model in its best graph: like baselines, they are measured at the end in any case.
    """
    remaining, reserve = float("inf"), 0.0
    baselines = sum(source == "baseline" for source in sources)
    finalists, audits, share = FINALISTS, FEW_AUDITS, LARGEST_RESERVE
    if short:
        finalists, audits, share = SHORT_FINALISTS, SHORT_AUDITS, SHORT_RESERVE
    elif seconds is None or seconds >= LONG_SECONDS:
        audits = ALL_AUDITS + dense
    if seconds is not None:
        remaining = (1 - SLACK) * seconds + lent - elapsed
        finish = (finalists + baselines + dense) * confirm_seconds(durations) + audits * AUDIT_SECONDS
        last_trial = min(trial_seconds(durations), LARGEST_LAST_TRIAL * seconds)
        reserve = min(finish, share * seconds) + last_trial
    return BudgetState(elapsed, remaining, reserve, finalists, audits, len(sources) - baselines, trials)


def loan(budget: BudgetState, seconds: float, training: float) -> float:
    """Return the seconds that a search needs of the training that follows it.

    Args:
        budget: At the beginning of the search.
        seconds: The job's budget.
        training: Seconds of the training.
    """
    spare = budget.remaining - budget.reserve
    lent = min(max(0.0, LEAST_SEARCH * seconds - spare), LARGEST_LOAN * training)
    return lent if spare + lent > 0 and budget.trials_left > 0 else 0.0  # too little for any search is for nothing


def confirm_seconds(durations: Mapping[str, Sequence[float]]) -> float:
    """Return the expected seconds of one confirmation, from what evaluations and measurements took so far."""
    return CONFIRM_OVER_TRIAL * trial_seconds(durations)


def trial_seconds(durations: Mapping[str, Sequence[float]]) -> float:
    """Return the expected seconds of a trial, from what evaluations and measurements took so far."""
    known = sum(median(durations[kind]) for kind in ("evaluate", "measure") if durations.get(kind))
    return known or FIRST_GUESS_SECONDS
