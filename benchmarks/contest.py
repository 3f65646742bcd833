"""Strategies on one problem: each proposes, all are judged by the same :class:`benchmarks.trial_cost.TrialBench`."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from datetime import timedelta

import numpy as np

from benchmarks.trial_cost import Outcome
from benchmarks.trial_cost import TrialBench
from infra.clock import utcnow
from search.hypervolume import hypervolume
from search.job_context import JobContext
from search.options import Explored
from search.prepared import Prepared
from search.requests import Goal
from search.requests import JobRequest
from search.requests import Sampler
from search.requests import Strategy as StrategyName
from search.strategies.base import Proposal
from search.study import StudyState
from search.study import TrialRecord

START = utcnow()
STRATEGIES: dict[str, tuple[StrategyName, Sampler]] = {
    "guided": ("guided", "tpe"),
    "guided, not exploring": ("guided", "tpe"),
    "TPE": ("direct", "tpe"),
    "NSGA-II": ("direct", "nsga2"),
    "GP": ("direct", "gp"),
    "random": ("random", "random"),
}


@dataclass
class Run:
    """One strategy with one seed.

    Attributes:
        strategy: A key of :data:`STRATEGIES`.
        seed: Of the study.
        seconds: When each trial was finished, ``[trials]``.
        points: Latency ratio and divergence of each, ``[trials, 2]``.
        recipes: JSON of each.
    """

    strategy: str
    seed: int
    seconds: list[float] = field(default_factory=list)
    points: list[tuple[float, float]] = field(default_factory=list)
    recipes: list[str] = field(default_factory=list)

    def volumes(self, worst: float) -> list[float]:
        """Return what the front is worth after each trial; ``worst`` is the divergence at which nothing counts."""
        points = [(float(np.log(ratio)), divergence) for ratio, divergence in self.points]
        return [hypervolume(points[: count + 1], [0.0, worst]) / worst for count in range(len(points))]


class Contest:
    """Runs strategies on one problem.

    Args:
        prepared: The model, as jobs keep it.
        trials: What candidates are tried on.
        limit: Seconds of a run after which it proposes nothing more.
    """

    def __init__(self, prepared: Prepared, trials: TrialBench, limit: float) -> None:
        self._prepared, self._trials, self._limit = prepared, trials, limit

    def run(self, name: str, seed: int, trials: int, *, started: float = 0.0, explored: Sequence[Explored] = ()) -> Run:
        """Let a strategy try ``trials`` candidates, presets included.

        Args:
            name: A key of :data:`STRATEGIES`.
            seed: Of the study.
            trials: How many.
            started: Seconds that were spent before the first trial.
            explored: What was found then.
        """
        strategy_name, sampler = STRATEGIES[name]
        request = JobRequest(
            model_id="model", dataset_id="data", strategy=strategy_name, sampler=sampler, seed=seed, goal=Goal()
        )
        prepared = self._prepared.model_copy(update={"explored": tuple(explored)})
        context = JobContext(request, prepared)
        study = StudyState(f"{name} {seed}", seed, request.goal, ())
        run, clock = Run(name, seed), started
        presets = (Proposal(p.recipe, "preset", context.space.to_params(p.recipe)) for p in context.presets)
        while len(study.trials) < trials and clock < self._limit:
            begun = time.monotonic()
            proposal = next(presets, None) or next(iter(context.strategy.ask(study, 1)), None)
            thought = time.monotonic() - begun
            if proposal is None:
                break
            outcome = self._trials.outcome(proposal.recipe)
            clock += thought + outcome.seconds
            run.seconds.append(clock)
            run.points.append((outcome.ratio, outcome.divergence))
            run.recipes.append(proposal.recipe.canonical_json())
            records = (*study.trials, _record(len(study.trials), proposal, outcome))
            study = replace(study, trials=records, progress=len(records) / trials)
        return run


def _record(number: int, proposal: Proposal, outcome: Outcome) -> TrialRecord:
    return TrialRecord(
        trial_id=str(number),
        number=number,
        digest=proposal.recipe.digest,
        source=proposal.source,
        outcome="done",
        recipe=proposal.recipe,
        params=proposal.params,
        sampler_state=proposal.sampler_state,
        ratio=outcome.ratio,
        loss=outcome.divergence,
        divergence=outcome.divergence,
        size_bytes=outcome.size_bytes,
        finished_at=START + timedelta(seconds=number),
    )
