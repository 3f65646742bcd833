"""What a tick would like to try next: reads only, so that no transaction is open while a sampler thinks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlmodel import Session
from sqlmodel import select

from compressors.recipe import Recipe
from infra.clock import utcnow
from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from search.budget import BudgetState
from search.budget import budget_state
from search.lifecycle import IN_FLIGHT
from search.lifecycle import job_trials
from search.prepared import Prepared
from search.presets import presets
from search.requests import JobRequest
from search.space import SearchSpace
from search.space import build_space
from search.study import study_state

TRIALS_IN_FLIGHT = 2


class PlannedTrial(BaseModel):
    """A proposal on its way from :func:`propose` to the transaction that creates its trial."""

    recipe: Recipe
    source: str
    name: str | None = None
    params: dict[str, Any] | None = None
    sampler_state: dict[str, Any] | None = None


class Plan(BaseModel):
    """What a tick would like to try next.

    Attributes:
        trials: New recipes, best first.
        exhausted: The strategy has nothing new left.
    """

    trials: list[PlannedTrial] = []
    exhausted: bool = False


def propose(session: Session, job: Job, now: datetime | None = None, *, in_flight: int = TRIALS_IN_FLIGHT) -> Plan:
    """Return the recipes that should be tried next, as many as there are free places.

    Args:
        session: Any session; nothing is written.
        job: The job.
        now: Current time.
        in_flight: Trials of this job that may be under way at a time.
    """
    if job.state != "running" or job.stage != "search":
        return Plan()
    request, prepared = JobRequest.model_validate(job.request), Prepared.load(job.prepared)
    trials = job_trials(session, job.id)
    budget = job_budget(session, job, request, trials, now or utcnow())
    free = free_places(trials, budget, in_flight)
    if free <= 0:
        return Plan()
    space = build_space(prepared.anatomy, prepared.capabilities, request.space, prepared.graph_defaults)
    planned = _presets(space, request, trials)[:free]
    if len(planned) == free:
        return Plan(trials=planned)
    from search.strategies import make_strategy  # loads Optuna

    strategy = make_strategy(request, prepared, space)
    study = study_state(job, request, trials, prepared.labelled, budget.progress)
    asked = strategy.ask(study, free - len(planned))
    planned += [
        PlannedTrial(recipe=p.recipe, source=p.source, params=p.params, sampler_state=p.sampler_state) for p in asked
    ]
    return Plan(trials=planned, exhausted=len(planned) < free)


def job_budget(session: Session, job: Job, request: JobRequest, trials: Sequence[Trial], now: datetime) -> BudgetState:
    """Return where the job stands in its budget."""
    steps = session.exec(select(Step).where(Step.job_id == job.id)).all()
    return budget_state(job, request.budget, trials, steps, now)


def free_places(trials: Sequence[Trial], budget: BudgetState, in_flight: int) -> int:
    """Return how many trials may begin now. Baselines take no place: there are few, and nothing waits for them."""
    if budget.search_is_over:
        return 0
    busy = sum(trial.state in IN_FLIGHT and trial.source != "baseline" for trial in trials)
    return int(min(in_flight - busy, budget.trials_left))


def _presets(space: SearchSpace, request: JobRequest, trials: Sequence[Trial]) -> list[PlannedTrial]:
    known = {trial.digest for trial in trials}
    return [
        PlannedTrial(recipe=preset.recipe, source="preset", name=preset.name, params=space.to_params(preset.recipe))
        for preset in presets(space, request.space)
        if preset.recipe.digest not in known
    ]
