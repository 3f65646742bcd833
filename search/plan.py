"""What a tick would like to try next: reads only, so that no transaction is open while a sampler thinks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from sqlmodel import Session

from compressors.recipe import Recipe
from infra.database.clock import database_now
from infra.database.models import Job
from search.budget import SHORT_SECONDS
from search.budget import BudgetState
from search.budget import budget_state
from search.candidates import keeps_everything
from search.durations import step_seconds
from search.job_clock import active_seconds
from search.job_context import JobContext
from search.job_context import job_context
from search.lifecycle import TRIAL_STAGES
from search.records import job_records
from search.requests import JobRequest
from search.shapes import Shape
from search.shapes import choose_shapes
from search.study import StudyState
from search.study import TrialRecord

TRIALS_IN_FLIGHT = 2


class PlannedTrial(BaseModel):
    """A proposal on its way from :func:`propose` to the transaction that creates its trial."""

    recipe: Recipe
    source: str
    name: str | None = None
    params: dict[str, Any] | None = None
    sampler_state: dict[str, Any] | None = None
    notice: str | None = None


class Plan(BaseModel):
    """What a tick would like to try next.

    Attributes:
        stage: The job's stage in which this was thought out; in another one it is void.
        trials: New recipes, best first.
        exhausted: The strategy has nothing new left.
        shapes: What recovery training should race about, when that is due.
    """

    stage: str
    trials: list[PlannedTrial] = []
    exhausted: bool = False
    shapes: list[Shape] = []


def propose(session: Session, job: Job, now: datetime | None = None, *, in_flight: int = TRIALS_IN_FLIGHT) -> Plan:
    """Return the recipes that should be tried next, as many as there are free places.

    Args:
        session: Any session; nothing is written.
        job: The job.
        now: Current time.
        in_flight: Trials of this job that may be under way at a time.
    """
    if job.state == "running" and job.stage == "recover":
        return _shapes(session, job)
    if job.state != "running" or job.stage not in TRIAL_STAGES:
        return Plan(stage=job.stage)
    context = job_context(job)
    request = context.request
    records = job_records(session, job.id, labelled=context.prepared.labelled)
    budget = job_budget(session, job, request, records, now or database_now(session))
    free = free_places(records, budget, in_flight)
    if free <= 0:
        return Plan(stage=job.stage)
    planned = planned_presets(context, records)[:free]
    if len(planned) == free:
        return Plan(stage=job.stage, trials=planned)
    if job.stage == "baselines":
        return Plan(stage=job.stage, trials=planned, exhausted=True)
    study = StudyState(job.id, request.seed, request.goal, tuple(records), budget.progress)
    asked = context.strategy.ask(study, free - len(planned))
    planned += [
        PlannedTrial(recipe=p.recipe, source=p.source, params=p.params, sampler_state=p.sampler_state, notice=p.notice)
        for p in asked
    ]
    return Plan(stage=job.stage, trials=planned, exhausted=len(planned) < free)


def _shapes(session: Session, job: Job) -> Plan:
    """Choose the shapes for recovery training, unless they are chosen."""
    if (job.prepared or {}).get("recovery", {}).get("shapes") is not None:
        return Plan(stage=job.stage)
    context = job_context(job)
    request = context.request
    records = job_records(session, job.id, labelled=context.prepared.labelled)
    study = StudyState(job.id, request.seed, request.goal, tuple(records), 1.0)
    return Plan(stage=job.stage, shapes=choose_shapes(request, context.prepared, study))


def job_budget(
    session: Session, job: Job, request: JobRequest, records: Sequence[TrialRecord], now: datetime
) -> BudgetState:
    """Return where the job stands in its budget."""
    limited = request.search_seconds is not None
    durations = step_seconds(session, job.id, ("evaluate", "measure")) if limited else {}
    elapsed = max(0.0, active_seconds(job, now) - recovery_seconds(job, now))
    sources = [record.source for record in records]
    lent = lent_seconds(job)
    short = request.budget.seconds is not None and request.budget.seconds < SHORT_SECONDS
    dense = sum(record.recipe is not None and keeps_everything(record.recipe) for record in records)
    return budget_state(
        request.search_seconds, request.budget.trials, elapsed, sources, durations, lent=lent, short=short, dense=dense
    )


def current_budget(session: Session, job: Job, now: datetime) -> BudgetState:
    """Return the same for a caller that needs no records."""
    context = job_context(job)
    records = job_records(session, job.id, labelled=context.prepared.labelled, expected_drops=False)
    return job_budget(session, job, context.request, records, now)


def lent_seconds(job: Job) -> float:
    """Return the time of the recovery training or repair that was given to the search."""
    return float((job.prepared or {}).get("lent", 0.0))


def recovery_seconds(job: Job, now: datetime) -> float:
    """Return the time that recovery training or repair has taken so far: it has a budget of its own."""
    recovery = (job.prepared or {}).get("recovery")
    if recovery is None:
        return 0.0
    end: float = active_seconds(job, now) if recovery["finished"] is None else recovery["finished"]
    return end - float(recovery["started"])


def free_places(records: Sequence[TrialRecord], budget: BudgetState, in_flight: int) -> int:
    """Return how many trials may begin now. Baselines take no place: there are few, and nothing waits for them."""
    if budget.search_is_over:
        return 0
    busy = sum(record.outcome == "running" and record.source != "baseline" for record in records)
    return int(min(in_flight - busy, budget.trials_left))


def planned_presets(context: JobContext, records: Sequence[TrialRecord]) -> list[PlannedTrial]:
    """Return the presets that the job has not tried yet."""
    known = {record.digest for record in records}
    to_params = context.space.to_params
    return [
        PlannedTrial(recipe=preset.recipe, source="preset", name=preset.name, params=to_params(preset.recipe))
        for preset in context.presets
        if preset.recipe.digest not in known
    ]
