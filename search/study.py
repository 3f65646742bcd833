"""The trials of a job as strategies see them: plain values, no rows, no session."""

from dataclasses import dataclass
from dataclasses import field
from datetime import UTC
from datetime import datetime
from typing import Any
from typing import Literal

from compressors.recipe import Recipe
from search.drop_model import Evidence
from search.requests import Goal

Outcome = Literal["running", "done", "failed"]
Objectives = tuple[float, float, float]
"""Latency ratio, loss of quality and stored bytes."""
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class TrialRecord:
    """One trial.

    Attributes:
        trial_id: The row.
        number: Position in the job.
        digest: Name of the candidate.
        source: ``baseline``, ``preset`` or a strategy's name.
        outcome: ``running`` until nothing more will be learnt about it.
        recipe: ``None`` for baselines.
        params: The sampler's parameters, if a sampler proposed it or could have.
        sampler_state: What the sampler wants to see again.
        ratio: Measured latency as a fraction of the dense reference's; ``None`` if it was not measured.
        predicted: The same as the latency model expected it.
        loss: Quality lost against the dense model on the search split: drop of the metric, or divergence where there
            are no labels.
        drop: Drop of the metric against the dense model, which the goal's ``max_drop`` limits; with labels, what is
            expected of more examples (:class:`search.drop_model.DropModel`).
        drop_at_least: Lower end of its 95 % interval.
        evidence: What the labels of the search split say; ``None`` without labels.
        divergence: Label-free distance to the dense model.
        size_bytes: Stored size.
        reference_ms: What the dense reference took beside it; see :mod:`search.reference_time`.
        noisy: Whether the measurement was.
        stopped: Its evaluation ended after the first part of the texts, which all its numbers are of. It was clear
            that it loses too much: ``drop_at_least`` is what this was judged by.
        finished_at: When the outcome was known.
    """

    trial_id: str
    number: int
    digest: str
    source: str
    outcome: Outcome
    recipe: Recipe | None = None
    params: dict[str, Any] | None = None
    sampler_state: dict[str, Any] | None = None
    ratio: float | None = None
    predicted: float | None = None
    loss: float | None = None
    drop: float | None = None
    drop_at_least: float | None = None
    evidence: Evidence | None = None
    divergence: float | None = None
    size_bytes: int | None = None
    reference_ms: float | None = None
    noisy: bool = False
    stopped: bool = False
    finished_at: datetime | None = None

    @property
    def expected_ratio(self) -> float | None:
        """Measured ratio, else the predicted one. For the search only; a prediction is never a result."""
        return self.ratio if self.ratio is not None else self.predicted

    @property
    def taught_ratio(self) -> float | None:
        """Measured ratio; the predicted one of a model that was rejected after its evaluation.

        Such models are measured nowhere, but their loss is known, and the search has to learn from them what their
        options cost and where the useful ones end.
        """
        return self.predicted if self.ratio is None and self.outcome == "done" else self.ratio

    @property
    def objectives(self) -> Objectives | None:
        """What is to be small, or ``None`` while one of them is unknown."""
        ratio = self.expected_ratio
        if self.outcome != "done" or ratio is None or self.loss is None or self.size_bytes is None:
            return None
        return ratio, self.loss, float(self.size_bytes)


@dataclass(frozen=True)
class StudyState:
    """Everything that a strategy may depend on: the same state gives the same proposals.

    Attributes:
        job_id: Names the study, for caches that only save time.
        seed: The request's seed.
        goal: The request's goal.
        trials: All trials in the order of their numbers.
        progress: Fraction of the search budget that is used, 0 to 1.
    """

    job_id: str
    seed: int
    goal: Goal
    trials: tuple[TrialRecord, ...]
    progress: float = 0.0
    digests: frozenset[str] = field(init=False)

    @property
    def finished(self) -> list[TrialRecord]:
        """Trials whose outcome is known, in the order in which it became known."""
        known = [trial for trial in self.trials if trial.outcome != "running"]
        return sorted(known, key=lambda trial: (trial.finished_at or _NEVER, trial.number))

    def __post_init__(self) -> None:
        object.__setattr__(self, "digests", frozenset(trial.digest for trial in self.trials))
