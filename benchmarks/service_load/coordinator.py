"""Time of one ask and the tells that follow it, in a job that has many trials already."""

import random
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
from sqlmodel import col
from sqlmodel import select

from benchmarks import paper_jobs
from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import Job
from infra.database.models import Trial
from search import coordinator
from search.branches import allowed_units
from search.estimator import latency_model
from search.job_context import JobContext
from search.job_context import job_context
from search.plan import PlannedTrial
from search.plan import planned_presets
from search.strategies.guided_space import GuidedSpace
from search.strategies.novelty import random_params
from search.trials import create_planned

ROUNDS = 12
WARM_UP = 2


def ask_and_tell(strategy: str, trials: int, folder: Path) -> dict[str, float]:
    """Fill a job with finished trials, then let its coordinator go on.

    Returns:
        Milliseconds: ``first`` (a process that sees the job for the first time), ``median`` and ``worst`` of the later
        rounds, ``ask`` (median of the tick alone). A round is one tick, one evaluation and one measurement told.
    """
    database = Database(f"sqlite:///{folder / f'{strategy}-{trials}.db'}")
    (job_id,) = paper_jobs.submit(database, strategy=strategy)
    _fill(database, job_id, trials)
    rounds = [_round(database, job_id) for _ in range(ROUNDS)]
    database.dispose()
    later = [sum(parts) for parts in rounds[WARM_UP:]]
    return {
        "first": sum(rounds[0]),
        "median": statistics.median(later),
        "worst": max(later),
        "ask": statistics.median(parts[0] for parts in rounds[WARM_UP:]),
    }


def _round(database: Database, job_id: str) -> tuple[float, float, float]:
    """Milliseconds of a tick that creates a trial, of telling its evaluation, and of telling its measurement."""
    started = time.perf_counter()
    with database.read_session() as session:
        plan = coordinator.propose(session, session.get_one(Job, job_id), in_flight=1)
    with database.write_session() as session:
        coordinator.commit(session, session.get_one(Job, job_id), plan, in_flight=1)
    asked = time.perf_counter()
    with database.write_session() as session:
        job, trial = session.get_one(Job, job_id), _newest(session, job_id)
        assert trial.state == "queued"
        found = paper_jobs.evaluation(trial.candidate)
        trial.quality, trial.size_bytes = found["quality"], found["size_bytes"]
        coordinator.after_evaluate(session, job, trial)
    evaluated = time.perf_counter()
    with database.write_session() as session:
        job, trial = session.get_one(Job, job_id), _newest(session, job_id)
        if trial.state == "evaluated":
            trial.measurement = paper_jobs.timing(trial.candidate)
            coordinator.after_measure(session, job, trial)
    measured = time.perf_counter()
    return (asked - started) * 1e3, (evaluated - asked) * 1e3, (measured - evaluated) * 1e3


def _newest(session, job_id: str) -> Trial:
    return session.exec(select(Trial).where(Trial.job_id == job_id).order_by(col(Trial.number).desc()).limit(1)).first()


def _fill(database: Database, job_id: str, count: int) -> None:
    """Write finished trials as a search would have left them; the six-layer encoder exists on paper only."""
    with database.write_session() as session:
        job = session.get_one(Job, job_id)
        coordinator.tick(session, job, in_flight=0)  # creates the baselines
        known = {trial.digest for trial in session.exec(select(Trial).where(Trial.job_id == job_id))}
        create_planned(session, job, _candidates(job_context(job), count), known, count)
    start = utcnow()
    with database.write_session() as session:
        for trial in session.exec(select(Trial).where(Trial.job_id == job_id)):
            found = paper_jobs.evaluation(trial.candidate)
            trial.quality, trial.size_bytes = found["quality"], found["size_bytes"]
            trial.measurement = paper_jobs.timing(trial.candidate)
            trial.state, trial.finished_at = "complete", start + timedelta(milliseconds=trial.number)
            session.add(trial)
        for step in session.exec(select(coordinator.Step).where(coordinator.Step.job_id == job_id)):
            step.state, step.started_at, step.finished_at = "done", start, start + timedelta(seconds=1)
            session.add(step)


def _candidates(context: JobContext, count: int) -> Sequence[PlannedTrial]:
    """Different random recipes, with the parameters that the strategy's sampler would remember."""
    generator, choices = random.Random(0), np.random.default_rng(0)
    request, prepared, space = context.request, context.prepared, context.space
    assert prepared.options is not None
    guided = GuidedSpace(
        allowed_units(prepared.options, space, prepared.latency_table),
        space,
        latency_model(request, prepared, ()),
        None,
        None,
    )
    found = {plan.recipe.digest: plan for plan in planned_presets(context, ())}
    while len(found) < count:
        params = None
        if request.strategy == "direct":
            params = random_params(space, generator)
            recipe = space.to_recipe(params)
        elif len(found) % 4 == 0:
            params = random_params(guided, generator)
            recipe = guided.to_recipe(params)
        if params is None or recipe.digest in found:
            params = None if request.strategy == "guided" else params
            choice = [int(choices.integers(len(unit.options))) for unit in guided.units]
            recipe = guided.recipe(choice, "f32")
        found.setdefault(recipe.digest, PlannedTrial(recipe=recipe, source=request.strategy, params=params))
    return list(found.values())
