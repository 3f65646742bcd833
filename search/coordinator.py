"""Drives the search of a job: the only place where trials are created.

``tick`` looks at the rows of a job and does what is due: baselines and presets first, then what the strategy proposes;
when the budget is used up, recovery training if it was asked for, and the final measurements. It has two halves, so
that no transaction is open while a sampler thinks: :func:`propose` reads, :func:`commit` writes and checks everything
again. Repeating either half, or a whole tick, changes nothing. All functions work in the caller's transaction; those
that end a trial ask for the next tick in it.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.clock import database_now
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.database.models import Trial
from infra.errors import InfeasibleGoalError
from infra.errors import ParetuneError
from infra.errors import RunnerError
from infra.events import append_event
from infra.steps import create_step
from profilers.types import Measurement
from profilers.types import Quality
from search import finalise
from search import healing
from search.budget import BudgetState
from search.budget import loan
from search.candidates import is_dense
from search.candidates import recipe_of
from search.estimator import predict_ratio
from search.first_look import Patience
from search.first_look import patience
from search.first_look import stop_of
from search.goals import check_reachable
from search.job_clock import PATIENCE
from search.job_clock import active_seconds
from search.job_clock import is_abandoned
from search.job_clock import note_time
from search.job_context import job_context
from search.lifecycle import ENDED
from search.lifecycle import IN_FLIGHT
from search.lifecycle import LEARNING_STAGES
from search.lifecycle import TRIAL_STAGES
from search.lifecycle import cancel_stage_steps
from search.lifecycle import cancel_trial_steps
from search.lifecycle import device_queue
from search.lifecycle import end_trial
from search.lifecycle import fail_job
from search.lifecycle import job_trials
from search.lifecycle import lock_job
from search.lifecycle import request_tick
from search.lifecycle import set_stage
from search.lifecycle import trial_event
from search.plan import TRIALS_IN_FLIGHT
from search.plan import Plan
from search.plan import current_budget
from search.plan import free_places
from search.plan import job_budget
from search.plan import lent_seconds
from search.plan import propose
from search.promote import give_up_above
from search.promote import rejection
from search.records import job_records
from search.requests import JobRequest
from search.study import TrialRecord
from search.trials import create_baselines
from search.trials import create_planned

__all__ = [
    "Plan",
    "after_audit",
    "after_confirm",
    "after_evaluate",
    "after_measure",
    "after_recover",
    "allowed_at_first",
    "commit",
    "fail_job",
    "learn",
    "needs_table",
    "propose",
    "recover_failed",
    "request_tick",
    "start_search",
    "start_trials",
    "tick",
    "trial_failed",
]

OUT_OF_TIME = "No time is left for what the stage {stage} finds out: the job goes on with what it has."
NO_SEARCH = (
    "No time is left for a search: preparation and baselines took {elapsed:.0f} seconds, and what the budget has left "
    "belongs to the final measurements."
)
NO_SEARCH_HINT = "Give the job a larger budget, or measure where less else runs."
EXHAUSTED = "Nothing new is left to try within the allowed space; the search ends before its budget."
FAILURES_IN_A_ROW = 10
"""After so many failed trials without a single good one the job gives up."""


def tick(session: Session, job: Job, now: datetime | None = None, *, in_flight: int = TRIALS_IN_FLIGHT) -> None:
    """Do what is due for a job, in one transaction: :func:`propose` and :func:`commit`."""
    commit(session, job, propose(session, job, now, in_flight=in_flight), now, in_flight=in_flight)


def commit(
    session: Session, job: Job, plan: Plan, now: datetime | None = None, *, in_flight: int = TRIALS_IN_FLIGHT
) -> None:
    """Create the planned trials as far as there is still place, or move the job on.

    A plan that was thought out in an earlier stage says nothing about this one: it is thrown away, and the next tick
    makes another.

    Args:
        session: A write session.
        job: The job.
        plan: What :func:`propose` returned, maybe some time ago.
        now: Current time.
        in_flight: Trials of this job that may be under way at a time.
    """
    now = now or database_now(session)
    job = lock_job(session, job)
    if job.state != "running":
        return
    note_time(session, job, now)
    if plan.stage != job.stage:
        request_tick(session, job)
    elif job.stage in LEARNING_STAGES:
        _stop_learning_in_time(session, job, now)
    elif job.stage == "finalise":
        if is_abandoned(job):
            finalise.give_up(session, job)
        finalise.finish_if_confirmed(session, job, job_trials(session, job.id), now)
    elif job.stage == "recover":
        _continue_recovery(session, job, plan, now)
    elif job.stage in TRIAL_STAGES:
        _continue_search(session, job, plan, now, in_flight)


def start_trials(session: Session, job: Job) -> None:
    """Let trials begin: called when the dense model is prepared.

    ``guided`` tries what needs no search first, so that there is an answer within the first minute; then it learns
    about the model and the device.
    """
    guided = JobRequest.model_validate(job.request).strategy == "guided"
    set_stage(session, job, "baselines" if guided else "search")
    request_tick(session, job)


def learn(session: Session, job: Job) -> None:
    """Have the latency table measured and the option database built: what ``guided`` needs for its search.

    A table of times is of no use where memory is the objective.
    """
    timed = needs_table(JobRequest.model_validate(job.request))
    set_stage(session, job, "table" if timed else "options")
    if timed:
        create_step(session, job_id=job.id, kind="table", key="table", queue=device_queue(session, job))
    create_step(session, job_id=job.id, kind="options", key="options", queue="compute")


def needs_table(request: JobRequest) -> bool:
    """Whether the search of ``guided`` needs the device's latency table."""
    return request.objective != "peak_memory"


def start_search(session: Session, job: Job, now: datetime | None = None) -> None:
    """Enter the search stage, when ``job.prepared`` is complete.

    Where learning has left it little time, it takes some from the training that follows.
    """
    _borrow(session, job, now or database_now(session))
    set_stage(session, job, "search")
    request_tick(session, job)


def allowed_at_first(session: Session, job: Job, trial: Trial) -> Patience | None:
    """Return how bad a trial may be before its evaluation ends; ``None``: it is evaluated to the end."""
    if is_dense(trial.candidate):
        return None
    context = job_context(job)
    labelled = context.prepared.labelled
    records = job_records(session, job.id, labelled=labelled, expected_drops=False)
    return patience(trial.source, context.request.goal, records, labelled=labelled)


def after_evaluate(session: Session, job: Job, trial: Trial, now: datetime | None = None) -> None:
    """Decide what becomes of a trial that has its size, and its quality if that matters: measure it, or reject it.

    What others are held against, baselines and the dense model in its best graph, is measured in any case.
    """
    job = lock_job(session, job)
    if trial.state != "queued" or job.state in ENDED:
        return
    context = job_context(job)
    request, prepared = context.request, context.prepared
    quality = Quality.model_validate(trial.quality) if trial.quality else None
    session.flush()
    others = job_records(session, job.id, labelled=prepared.labelled)
    loss = others.pop(trial.number).loss  # numbers have no gaps
    recipe = recipe_of(trial.candidate)
    predicted = predict_ratio(request, prepared, others, recipe) if recipe else None
    trial.predicted = {"ratio": predicted.value, "low": predicted.low, "high": predicted.high} if predicted else None
    trial.state = "evaluated"
    session.add(trial)
    limit = None
    if trial.source != "baseline" and not is_dense(trial.candidate):
        stop = stop_of(trial.facts)
        reason = (
            stop.reason if stop else rejection(quality, trial.size_bytes, predicted, others, request.goal, loss=loss)
        )
        if reason is not None:
            trial.facts = trial.facts | {"rejected": reason}
            end_trial(session, trial, "rejected", now=now)
            request_tick(session, job)
            return
        assert loss is not None
        limit = give_up_above(loss, trial.size_bytes, others)
    append_event(session, job.id, "trial", trial_event(trial))
    create_step(
        session,
        job_id=job.id,
        trial_id=trial.id,
        kind="measure",
        key=f"measure:{trial.digest}",
        queue=device_queue(session, job),
        payload={"give_up_above": limit},
    )


def after_measure(session: Session, job: Job, trial: Trial, now: datetime | None = None) -> None:
    """Complete a trial that has its measurement."""
    job = lock_job(session, job)
    if trial.state != "evaluated" or job.state in ENDED:
        return
    end_trial(session, trial, "complete", now=now)
    if trial.candidate.get("name") == "fp32":
        request = JobRequest.model_validate(job.request)
        try:
            check_reachable(request.goal, Measurement.model_validate(trial.measurement).reference_ms)
        except InfeasibleGoalError as error:
            fail_job(session, job, error, now)
            return
    request_tick(session, job)


def after_recover(session: Session, job: Job, step: Step, output: JsonObject) -> None:
    """Try the model that a recovery training has brought, in every number format."""
    job = lock_job(session, job)
    if job.state in ENDED or job.stage != "recover":
        return
    healing.trained(session, job, step, output)
    request_tick(session, job)


def recover_failed(session: Session, job: Job, step: Step, error: ParetuneError) -> None:
    """Note that a recovery training failed for good; the job goes on with the other shapes."""
    job = lock_job(session, job)
    if job.state in ENDED:
        return
    append_event(session, job.id, "error", {"step": step.key} | error.to_dict())
    request_tick(session, job)


def after_confirm(session: Session, job: Job, trial: Trial) -> None:
    """Go on after a trial got its final numbers."""
    job = lock_job(session, job)
    append_event(session, job.id, "trial", trial_event(trial) | {"confirmed": True})
    request_tick(session, job)


def after_audit(session: Session, job: Job, now: datetime | None = None) -> None:
    """Go on after a finalist was compared with torch's own export."""
    job = lock_job(session, job)
    if job.state in ENDED:
        return
    now = now or database_now(session)
    finalise.give_up_late_audits(session, job, current_budget(session, job, now), now)
    request_tick(session, job)


def trial_failed(session: Session, job: Job, trial: Trial, error: ParetuneError, now: datetime | None = None) -> None:
    """Note that a trial's step failed for good. The job goes on, unless nothing can come of it any more."""
    job = lock_job(session, job)
    if job.state in ENDED:
        return
    if trial.state == "complete":
        trial.facts = trial.facts | {"confirm_error": error.to_dict()}
        session.add(trial)
        append_event(session, job.id, "error", {"trial_id": trial.id} | error.to_dict())
        request_tick(session, job)
        return
    if trial.state not in IN_FLIGHT:
        return
    end_trial(session, trial, "failed", error=error, now=now)
    if trial.source == "baseline" and trial.candidate.get("name") == "fp32":
        fail_job(session, job, error, now)
    elif _hopeless(session, job):
        hint = error.hint or "Look at the errors of the job's trials."
        fail_job(session, job, RunnerError(f"No trial succeeds; the last error: {error.message}", hint=hint), now)
    else:
        request_tick(session, job)


def _continue_search(session: Session, job: Job, plan: Plan, now: datetime, in_flight: int) -> None:
    """Create trials, give up those for which there is no time, or go on to what comes next."""
    context = job_context(job)
    request, prepared = context.request, context.prepared
    records = job_records(session, job.id, labelled=prepared.labelled, expected_drops=False)
    if create_baselines(session, job, prepared.capabilities.baselines, {record.digest for record in records}):
        records = job_records(session, job.id, labelled=prepared.labelled, expected_drops=False)
    budget = job_budget(session, job, request, records, now)
    if budget.overdue:
        _give_up_trials(session, job, records, now)
        records = job_records(session, job.id, labelled=prepared.labelled, expected_drops=False)
    free = free_places(records, budget, in_flight)
    created = create_planned(session, job, plan.trials, {record.digest for record in records}, free)
    _tell_of_goal(session, job, plan)
    waiting = created or any(record.outcome == "running" for record in records)
    if not waiting and (budget.search_is_over or plan.exhausted):
        if job.stage == "baselines" and not budget.search_is_over:
            learn(session, job)
            return
        if not budget.search_is_over:
            append_event(session, job.id, "notice", {"message": EXHAUSTED})
        elif job.stage == "baselines" and budget.remaining <= budget.reserve:
            message = NO_SEARCH.format(elapsed=budget.elapsed)
            append_event(session, job.id, "notice", {"message": message, "hint": NO_SEARCH_HINT})
        _after_search(session, job, budget, now)
    elif len(created) < free and not plan.exhausted:
        request_tick(session, job)


def _tell_of_goal(session: Session, job: Job, plan: Plan) -> None:
    """Pass on what the strategy expects of the goal, once in a job: predictions move a little with every trial."""
    said = next((trial.notice for trial in plan.trials if trial.notice), None)
    if said is None:
        return
    told = session.exec(select(Event.payload).where(Event.job_id == job.id, Event.kind == "notice"))
    if not any(payload.get("about") == "goal" for payload in told):
        append_event(session, job.id, "notice", {"about": "goal", "message": said})


def _borrow(session: Session, job: Job, now: datetime) -> None:
    """Let the search have some of the time of the training that follows, once, if it has too little of its own."""
    request = JobRequest.model_validate(job.request)
    if request.training is None or request.budget.seconds is None or lent_seconds(job):
        return
    lent = loan(current_budget(session, job, now), request.budget.seconds, request.training.seconds)
    job.prepared = (job.prepared or {}) | {"lent": lent}
    session.add(job)


def _stop_learning_in_time(session: Session, job: Job, now: datetime) -> None:
    """Go on without what is being found out, when no time is left to make use of it."""
    budget = current_budget(session, job, now)
    if budget.overdue and job.stage != "graphs":
        _borrow(session, job, now)
        budget = current_budget(session, job, now)
    over = budget.search_is_over if lent_seconds(job) else budget.overdue  # what was lent is for the search
    if not over:
        return
    append_event(session, job.id, "notice", {"message": OUT_OF_TIME.format(stage=job.stage)})
    if job.stage == "graphs":
        cancel_stage_steps(session, job)
        start_trials(session, job)
    else:
        _after_search(session, job, budget, now)


def _after_search(session: Session, job: Job, budget: BudgetState, now: datetime) -> None:
    """Begin the recovery training or repair if there is one, else the finish.

    What only served the search, such as exploring, is cut off: a training would have to wait for it.
    """
    cancel_stage_steps(session, job)
    if job_context(job).request.training is not None:
        healing.start(session, job, now)
    else:
        finalise.start(session, job, job_trials(session, job.id), budget)


def _continue_recovery(session: Session, job: Job, plan: Plan, now: datetime) -> None:
    """Begin the next training, or go on to the finish."""
    if healing.advance(session, job, plan.shapes, now):
        finalise.start(session, job, job_trials(session, job.id), current_budget(session, job, now))


def _give_up_trials(session: Session, job: Job, records: Sequence[TrialRecord], now: datetime) -> None:
    """Cancel what is queued or running, because the time that is left belongs to the final measurements.

    Baselines are waited for a little longer: however long the preparation took, the job should know at least what can
    be had in one line.
    """
    running = [record.trial_id for record in records if record.outcome == "running"]
    trials = session.exec(select(Trial).where(col(Trial.id).in_(running))).all()
    stage_seconds = active_seconds(job, now) - job.stage_seconds  # baselines were created when it began
    late = [trial for trial in trials if trial.source != "baseline" or stage_seconds > PATIENCE]
    for trial in late:
        end_trial(session, trial, "cancelled", now=now)
    cancel_trial_steps(session, [trial.id for trial in late])


def _hopeless(session: Session, job: Job) -> bool:
    statement = select(Trial.state).where(Trial.job_id == job.id, Trial.source != "baseline")
    states = list(session.exec(statement))
    return states.count("failed") >= FAILURES_IN_A_ROW and not {"complete", "rejected"} & set(states)
