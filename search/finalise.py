"""The end of a job: choose finalists, have them confirmed, and write down what came out."""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from infra.errors import InfeasibleGoalError
from infra.errors import RunnerError
from infra.events import append_event
from infra.steps import create_step
from search.budget import AUDIT_SECONDS
from search.budget import FINALISTS
from search.budget import BudgetState
from search.goals import choose
from search.guard import pareto_front
from search.guard import rivals
from search.job_clock import PATIENCE
from search.job_context import job_context
from search.lifecycle import cancel_stage_steps
from search.lifecycle import device_queue
from search.lifecycle import end_job
from search.lifecycle import fail_job
from search.lifecycle import request_tick
from search.lifecycle import set_stage
from search.pareto import thin
from search.prepared import Prepared
from search.promote import quality_limit
from search.requests import Goal
from search.requests import JobRequest
from search.standing import Standing
from search.standing import standings
from search.summary import summarise

LEAST_SECONDS_FOR_AUDITS = 60.0
"""With less time left the final measurements get all of it: tracing a model takes some seconds."""

LEADERS = 3
"""Of the fastest models that keep to the maximum drop, whether or not another is better in everything: where the final
examples are against the first, the next has to be known as well."""

LATEST_AUDIT = AUDIT_SECONDS / 2
"""With less time left no further audit begins. The first, of the best model, is made in any case."""
LAST_KINDS = ("confirm", "audit")
NOT_AUDITED = "The budget is over: {count} of the measured models were not compared with torch's own export."
UNCONFIRMED = "Models without final measurements keep the numbers of the search; run the job again for final ones."


def start(session: Session, job: Job, trials: Sequence[Trial], budget: BudgetState) -> None:
    """Enter the stage ``finalise``: one ``confirm`` step, in which all finalists race each other, and a few audits.

    The payload of ``confirm`` gives ``trials``, the ids of the finalists, and ``max_seconds``, the time that is left
    for it.
    """
    context = job_context(job)
    request = context.request
    set_stage(session, job, "finalise")
    entries = standings(trials, labelled=context.prepared.labelled, final=False)
    chosen = finalists(entries, request.goal, budget.finalists)
    if not chosen:
        request_tick(session, job)
        return
    left = None if budget.remaining == float("inf") else max(1.0, budget.remaining)
    queue = device_queue(session, job)
    written = context.prepared.capabilities.form == "onnx"  # a torch artifact is what an audit compares with
    checked: list[Standing] = []
    if written and (left is None or left >= LEAST_SECONDS_FOR_AUDITS):
        checked = audited(chosen, entries, request.goal, request.seed, budget.audits)
    if left is not None:  # the audits come after it, on the same device
        left = max(1.0, left - AUDIT_SECONDS * len(checked))
    create_step(
        session,
        job_id=job.id,
        kind="confirm",
        key="confirm",
        queue=queue,
        payload={"trials": [entry.trial_id for entry in chosen], "max_seconds": left},
    )
    for entry in checked:
        key = f"audit:{entry.trial_id}"
        create_step(session, job_id=job.id, trial_id=entry.trial_id, kind="audit", key=key, queue=queue)


def audited(
    chosen: Sequence[Standing], entries: Sequence[Standing], goal: Goal, seed: int, count: int
) -> list[Standing]:
    """Return the models that are compared with torch's own export, at most ``count``.

    The best finalist by the goal, another one at random, one at random of what was measured but is no finalist, and
    then the other finalists. A fault of the exporter that makes models look slow or bad would be in no finalist.
    """
    models = [entry for entry in chosen if entry.baseline is None]
    best = choose(goal, models, []).best
    finalist_ids = {entry.trial_id for entry in chosen}
    left = [entry for entry in entries if entry.baseline is None and entry.trial_id not in finalist_ids]
    generator = np.random.default_rng(seed)
    others = [models[index] for index in generator.permutation(len(models)) if models[index] is not best]
    outsider = [left[int(generator.integers(len(left)))]] if left else []
    return [*([best] if best is not None else []), *others[:1], *outsider, *others[1:]][:count]


def finalists(entries: Sequence[Standing], goal: Goal, size: int = FINALISTS) -> list[Standing]:
    """Choose what is confirmed: the goal's best model, the guard's rivals, and at most ``size`` points of the front.

    Rivals are the baselines and the dense model in its best graph: what has no final numbers holds nobody back.

    A candidate that the guard might still pass with a sharper measurement is a finalist as well. The front is thinned
    so that it keeps as much hypervolume as possible where the goal looks. With a maximum drop the :data:`LEADERS`
    fastest models that keep to it have the first places. Places that are left go to what only the front dominates, and
    so on: the quality of a front's best is partly luck, and on other examples what was just behind it is often better.
    """
    baselines = [entry for entry in entries if entry.baseline is not None]
    dense = [entry for entry in entries if entry.dense]
    candidates = [entry for entry in entries if entry.baseline is None and _may_pass(entry, entries)]
    best = choose(goal, pareto_front(candidates), baselines).best
    left = [entry for entry in candidates if _interesting(entry, goal)] or candidates
    left = [entry for entry in left if not entry.dense]
    chosen = _leaders(left, goal)[:size]
    left = [entry for entry in left if entry not in chosen]
    while left and len(chosen) < size:
        layer = pareto_front(left)
        chosen += _thin(layer, size - len(chosen))
        left = [entry for entry in left if entry not in layer]
    ordered = ([best] if best else []) + baselines + dense + chosen
    return list({entry.trial_id: entry for entry in ordered}.values())


def give_up(session: Session, job: Job) -> None:
    """Go without the final measurements and audits that nobody makes; the job ends with the numbers of its search."""
    waiting = select(Step.id).where(
        Step.job_id == job.id, col(Step.kind).in_(LAST_KINDS), col(Step.state).in_(("queued", "running"))
    )
    if session.exec(waiting).first() is not None:
        cancel_stage_steps(session, job)
        message = f"No worker of the device has come within {PATIENCE / 60:g} minutes for what is left of the finish."
        append_event(session, job.id, "notice", {"message": message, "hint": UNCONFIRMED})


def give_up_late_audits(session: Session, job: Job, budget: BudgetState, now: datetime) -> None:
    """Go without the audits that have not begun when the budget is over; called when one has ended."""
    waiting = select(Step).where(Step.job_id == job.id, Step.kind == "audit", Step.state == "queued")
    late = session.exec(waiting).all() if budget.remaining < LATEST_AUDIT else []
    for step in late:
        step.state, step.finished_at = "cancelled", now
        session.add(step)
    if late:
        append_event(session, job.id, "notice", {"message": NOT_AUDITED.format(count=len(late))})


def finish_if_confirmed(session: Session, job: Job, trials: Sequence[Trial], now: datetime) -> None:
    """End the job when confirmation and audits have ended, one way or the other."""
    steps = session.exec(select(Step).where(Step.job_id == job.id)).all()
    if any(step.kind in LAST_KINDS and step.state in {"queued", "running"} for step in steps):
        return
    request, prepared = JobRequest.model_validate(job.request), Prepared.load(job.prepared)
    if not any(trial.state == "complete" for trial in trials):
        hint = "Look at the errors of the job's trials; a longer budget helps if they were cut off."
        fail_job(session, job, RunnerError("No model was measured within the budget.", hint=hint), now)
        return
    job.summary = summarise(job, request, prepared, trials, steps, now)
    if job.summary["verdict"] == "goal_out_of_reach":
        fail_job(session, job, InfeasibleGoalError(job.summary["message"], hint=job.summary["hint"]), now)
    else:
        end_job(session, job, "succeeded", now=now)


def _leaders(entries: Sequence[Standing], goal: Goal) -> list[Standing]:
    """Return the fastest models that are expected to keep to the goal's maximum drop; none without such a goal."""
    if goal.max_drop is None:
        return []
    good = [entry for entry in entries if entry.expected_drop <= goal.max_drop]
    return sorted(good, key=lambda entry: entry.ratio.value)[:LEADERS]


def _may_pass(entry: Standing, entries: Sequence[Standing]) -> bool:
    against = rivals(entry, entries)
    return entry.status != "slower_than_front" and all(entry.ratio.low < rival.ratio.high for rival in against)


def _interesting(entry: Standing, goal: Goal) -> bool:
    if not goal.fits(entry.size_bytes):
        return False
    if goal.max_drop is not None:
        return entry.expected_drop <= quality_limit(goal.max_drop)
    return goal.max_latency_ms is None or entry.latency_ms <= goal.max_latency_ms * 1.2


def _thin(front: Sequence[Standing], size: int) -> list[Standing]:
    if not front:
        return []
    # Two objectives first: size only breaks ties, a front of models that differ in nothing but bytes helps nobody.
    points = np.array([entry.objectives for entry in front])
    scaled = (points - points.min(axis=0)) / np.maximum(points.max(axis=0) - points.min(axis=0), 1e-12)
    scaled[:, 2] *= 0.1
    return [front[index] for index in thin(scaled, np.array([1.1, 1.1, 1.1]), size)]
