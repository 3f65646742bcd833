"""The stage ``recover``: shapes are trained one after the other, and every trained model becomes a trial.

What has been decided lies in ``job.prepared["recovery"]``; everything else follows from the rows of steps and trials,
so that repeating a tick changes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from statistics import median_low
from typing import NamedTuple

from pydantic import BaseModel
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from compressors.recipe import Recipe
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.database.models import Trial
from infra.events import append_event
from infra.steps import create_step
from search.budget import trial_seconds
from search.durations import step_seconds
from search.estimator import latency_model
from search.job_clock import PATIENCE
from search.job_clock import active_seconds
from search.job_clock import is_abandoned
from search.job_context import JobContext
from search.job_context import job_context
from search.lifecycle import IN_FLIGHT
from search.lifecycle import cancel_stage_steps
from search.lifecycle import end_trial
from search.lifecycle import request_tick
from search.lifecycle import set_stage
from search.outcomes import kept_model
from search.outcomes import lanes_of
from search.outcomes import outcome_of
from search.outcomes import place_of
from search.plan import PlannedTrial
from search.plan import current_budget
from search.plan import lent_seconds
from search.quantized_finish import FINISH_SHARE
from search.quantized_finish import LEAST_STEPS
from search.quantized_finish import SLOWER
from search.quantized_finish import finish_candidates
from search.quantized_finish import is_int8
from search.quantized_finish import is_trained
from search.quantized_finish import lose_by_rounding
from search.quantized_finish import shape_digest
from search.race import SHORTEST_SECONDS
from search.race import Outcome
from search.race import Place
from search.race import Training
from search.race import next_gradual
from search.race import next_training
from search.records import job_records
from search.reference_time import ratio_ceiling
from search.requests import Goal
from search.requests import JobRequest
from search.requests import Recover
from search.shapes import Shape
from search.shapes import in_formats
from search.space import SearchSpace
from search.study import TrialRecord
from search.trials import create_planned

SOURCE = "recovery"
EVALUATION_SHARE = 0.4
"""Part of the recovery's time that evaluating and measuring the trained models may take."""
LEAST_TRAINING_SHARE = 0.1
"""The rest of it, where as many shapes train as can be evaluated."""
EXPECTED_TRAININGS = 8
"""Trainings of a race where there is time: scouts, and halves of the rest until a half is too little."""
USUAL_OVERHEAD = 5.0
"""Seconds that a training takes beside its training time, while none but the first has ended."""
LEAST_SHARE = 0.02
"""A training that would get less of the time than this is not begun."""


class Healing(BaseModel):
    """Where the stage is.

    Attributes:
        budget: Time for all of it in seconds, evaluation of the trained models included.
        started: The job's active seconds at its beginning.
        finished: The same at its end.
        shapes: What is trained; ``None`` until they are chosen.
        seconds: Training time in all.
        trainings: Trainings that there is time for, and for the evaluation of what they bring.
    """

    budget: float
    started: float
    finished: float | None = None
    shapes: tuple[Shape, ...] | None = None
    seconds: float = 0.0
    trainings: int = 0

    @classmethod
    def load(cls, job: Job) -> "Healing | None":
        """Read it from the job's row; ``None`` before the stage has begun."""
        found = (job.prepared or {}).get("recovery")
        if found is None:
            return None
        wanted = job_context(job).request.training
        usual = {} if wanted is None else {"budget": wanted.seconds}  # rows of before there were loans have none
        return cls.model_validate(usual | found)

    def save(self, session: Session, job: Job) -> None:
        """Write it to the job's row."""
        job.prepared = (job.prepared or {}) | {"recovery": self.model_dump(mode="json")}
        session.add(job)


class Finish(NamedTuple):
    """A quantisation-aware finish that is due: the int8 model, the recipe to train, and the seconds for it."""

    record: TrialRecord
    recipe: Recipe
    seconds: float


def start(session: Session, job: Job, now: datetime) -> None:
    """Enter the stage; the next tick chooses the shapes."""
    set_stage(session, job, "recover")
    wanted = job_context(job).request.training
    assert wanted is not None
    if Healing.load(job) is None:
        lent = _still_lent(session, job, now)
        job.prepared = (job.prepared or {}) | {"lent": lent}
        Healing(budget=wanted.seconds - lent, started=active_seconds(job, now)).save(session, job)
    request_tick(session, job)


def _still_lent(session: Session, job: Job, now: datetime) -> float:
    """Return what the search has used of the time that it borrowed: the rest is given back."""
    lent = lent_seconds(job)
    if not lent:
        return 0.0
    budget = current_budget(session, job, now)
    return lent - min(lent, max(0.0, budget.remaining - budget.reserve))


def advance(session: Session, job: Job, shapes: Sequence[Shape], now: datetime) -> bool:
    """Begin the next training if nothing is under way.

    Args:
        session: A write session.
        job: The job, locked, in the stage ``recover``.
        shapes: What is trained, if that has not begun yet.
        now: Current time.

    Returns:
        Whether the stage is over.
    """
    context = job_context(job)
    request, space = context.request, context.space
    healing = Healing.load(job)
    if healing is None or request.training is None or healing.finished is not None:
        return True
    elapsed = active_seconds(job, now) - healing.started
    if elapsed > healing.budget + PATIENCE and is_abandoned(job):
        _give_up(session, job, now)
    if healing.shapes is None:
        healing = _begin(session, job, healing, request, space, shapes)
    steps = session.exec(select(Step).where(Step.job_id == job.id, Step.kind == "recover")).all()
    records = job_records(session, job.id, labelled=context.prepared.labelled)
    if any(step.state in {"queued", "running"} for step in steps) or any(
        record.outcome == "running" for record in records if record.source == SOURCE
    ):
        return False
    left = healing.budget - elapsed - _evaluation_seconds(session, job, 1, space) - _overhead(steps, elapsed)
    finish, kept = None, 0.0
    if 8 in space.bits and request.training.quantized_finish:
        finish = _next_finish(healing, request, steps, records, left)
        kept = _kept_for_finishes(healing, request.goal, steps, records, finish)
    if _train_next(session, job, healing, context, steps, records, left - kept):
        return False
    if finish is not None:
        _create_finish(session, job, steps, finish)
        return False
    healing.model_copy(update={"finished": active_seconds(job, now)}).save(session, job)
    return True


def trained(session: Session, job: Job, step: Step, output: JsonObject) -> None:
    """Create a trial of the trained model in each number format, or of the shape as it was if that stays the better."""
    finish = bool(step.payload.get("finish"))
    if not output["improved"]:
        message = "The training did not make the model better on texts that it did not see; the model before it stays."
        append_event(session, job.id, "notice", {"message": message, "step": step.key})
        if finish:
            return
    context = job_context(job)
    recipe = kept_model(step.payload, output)
    variants = [recipe] if finish else in_formats(recipe, context.space)
    planned = [PlannedTrial(recipe=variant, source=SOURCE) for variant in variants]
    known = set(session.exec(select(Trial.digest).where(Trial.job_id == job.id)))
    wanted = context.request.training
    assert wanted is not None
    facts = {"step": step.key, "quantized_finish": finish, "use_labels": wanted.use_labels}
    facts |= {name: output[name] for name in ("seconds", "steps", "texts", "start_score", "best_score", "precision")}
    for trial in create_planned(session, job, planned, known, len(planned)):
        trial.facts = trial.facts | {"recovery": facts}
        session.add(trial)


def _begin(
    session: Session, job: Job, healing: Healing, request: JobRequest, space: SearchSpace, shapes: Sequence[Shape]
) -> Healing:
    """Write down what is trained, and for how long."""
    wanted, total = request.training, healing.budget
    assert wanted is not None
    if not shapes:
        append_event(session, job.id, "notice", {"message": "No shape is worth training."})
    most = EXPECTED_TRAININGS
    if request.goal.is_open:  # as many shapes as there is time for, each of which is evaluated as well
        most = max(1, int(total / (SHORTEST_SECONDS + _evaluation_seconds(session, job, 1, space))))
    trainings = min(len(shapes), most, 1 + int(total / SHORTEST_SECONDS))
    models = len(shapes) if wanted.mode == "gradual" else trainings
    evaluation = _evaluation_seconds(session, job, models, space)
    share = LEAST_TRAINING_SHARE if request.goal.is_open else 1 - EVALUATION_SHARE
    seconds = max(total - evaluation, share * total)
    updated = healing.model_copy(update={"shapes": tuple(shapes), "seconds": seconds, "trainings": trainings})
    updated.save(session, job)
    return updated


def _give_up(session: Session, job: Job, now: datetime) -> None:
    """End the trainings and trials that are waited for; what is known about them stays."""
    cancel_stage_steps(session, job)
    for trial in session.exec(select(Trial).where(Trial.job_id == job.id, col(Trial.state).in_(IN_FLIGHT))):
        end_trial(session, trial, "cancelled", now=now)
    message = "No worker does what is left of the recovery training, and its time is over: the job goes on without."
    append_event(session, job.id, "notice", {"message": message})


def _train_next(
    session: Session,
    job: Job,
    healing: Healing,
    context: JobContext,
    steps: Sequence[Step],
    records: Sequence[TrialRecord],
    left: float,
) -> bool:
    """Begin the next training; return whether there is one.

    What shapes cost is worked out anew each time: every trained model that was measured since has taught something.
    """
    request, space = context.request, context.space
    shapes, wanted = healing.shapes or (), request.training
    assert wanted is not None
    if not shapes or left < LEAST_SHARE * healing.budget:
        return False
    outcomes: dict[Place, Outcome] = {
        place_of(step): outcome_of(step, records, space) for step in steps if not step.payload.get("finish")
    }
    lanes = lanes_of(shapes, outcomes, latency_model(request, context.prepared, records), space)
    if wanted.mode == "gradual":
        training = next_gradual(len(shapes), outcomes, left)
    else:
        goal, ceiling = request.goal, ratio_ceiling(request.goal, records)
        training = next_training(lanes, outcomes, healing.seconds, left, goal, most=healing.trainings, ceiling=ceiling)
    if training is None:
        return False
    seconds = left if training.last else min(training.seconds, left)
    _create(session, job, shapes, training, seconds, wanted, lanes[training.place[1]].cost)
    return True


def _create(
    session: Session,
    job: Job,
    shapes: Sequence[Shape],
    training: Training,
    seconds: float,
    wanted: Recover,
    ratio: float,
) -> None:
    number, index = training.place
    shape = shapes[index]
    # Re-solving helps the order that was found for it; after Taylor's it leaves a worse start (benchmarks.recovery).
    compensation = "least_squares" if wanted.start == "obs" else "none"
    update = {"weights": training.weights, "criterion": wanted.start, "compensation": compensation}
    payload: JsonObject = {
        "recipe": shape.recipe.model_copy(update=update).model_dump(mode="json"),
        "seconds": seconds,
        "place": list(training.place),
        "origin": shape.origin,
        "number": shape.number,
    }
    if training.parent is not None:
        parent, weights = training.parent
        payload["parent"] = shapes[parent].recipe.model_copy(update={"weights": weights}).model_dump(mode="json")
    key = f"recover:{number}:{index}"
    create_step(session, job_id=job.id, kind="recover", key=key, queue="compute", payload=payload)
    what = "Recovery training" if wanted.use_labels else "Repair without labels"
    message = f"{what} {number + 1}: shape {index + 1} of {len(shapes)}, for {seconds:.0f} s."
    append_event(session, job.id, "notice", {"message": message, "predicted_ratio": ratio, "step": key})


def _next_finish(
    healing: Healing, request: JobRequest, steps: Sequence[Step], records: Sequence[TrialRecord], left: float
) -> Finish | None:
    """Return the next quantisation-aware finish: of the first model that needs one and for which there is time."""
    finishes = [step for step in steps if step.payload.get("finish")]
    seconds = min(left, FINISH_SHARE * healing.budget - sum(map(_spent, finishes)))
    finished = {shape_digest(Recipe.model_validate(step.payload["recipe"])) for step in finishes}
    least = _least_finish(steps)
    affordable = (
        Finish(record, recipe, seconds)
        for record, recipe in finish_candidates(records, request.goal, finished)
        if seconds >= least.get(recipe.weights or "", 0.0)
    )
    return next(affordable, None) if seconds > 0 else None


def _kept_for_finishes(
    healing: Healing, goal: Goal, steps: Sequence[Step], records: Sequence[TrialRecord], finish: Finish | None
) -> float:
    """Return the time that trainings have to leave for finishes.

    None as soon as trained models were tried in int8 and lost nothing by rounding, or are no faster for it, whether or
    not they would be an answer: it makes a training longer. None either where it is too short for any finish. Once a
    model had its finish, the trainings are over.
    """
    share = FINISH_SHARE * healing.budget
    if finish is not None or any(step.payload.get("finish") for step in steps):
        return share
    tried = any(is_trained(record) and is_int8(record) for record in records)
    in_vain = min(_least_finish(steps).values(), default=0.0) > share
    return 0.0 if in_vain or (tried and not lose_by_rounding(records, goal)) else share


def _least_finish(steps: Sequence[Step]) -> dict[str, float]:
    """Return the seconds of the shortest useful finish, by the weights that it begins with."""
    return {
        step.output["weights"]: LEAST_STEPS * SLOWER * _spent(step) / max(1, step.output["steps"])
        for step in steps
        if step.output
    }


def _create_finish(session: Session, job: Job, steps: Sequence[Step], finish: Finish) -> None:
    number = sum(bool(step.payload.get("finish")) for step in steps)
    key, recipe = f"recover:finish:{number}", finish.recipe.model_dump(mode="json")
    payload: JsonObject = {"recipe": recipe, "seconds": finish.seconds, "place": [len(steps), 0], "finish": True}
    create_step(session, job_id=job.id, kind="recover", key=key, queue="compute", payload=payload)
    message = f"Quantisation-aware finish of model {finish.record.number}, for at most {finish.seconds:.0f} s."
    append_event(session, job.id, "notice", {"message": message, "step": key})


def _spent(step: Step) -> float:
    """Return the training time of a step; of one that brought nothing, what it has taken, but at most what it had."""
    if step.output is not None:
        return float(step.output["seconds"])
    had = float(step.payload["seconds"])
    if step.started_at is None or step.finished_at is None:
        return had
    return min(had, (step.finished_at - step.started_at).total_seconds())


def _overhead(steps: Sequence[Step], elapsed: float) -> float:
    """Return what a training takes beside its training time, to load and to cut.

    The first one, which runs the dense model as well, says nothing about the others; of one that was interrupted, and
    has waited, the lower median keeps clear.

    Args:
        steps: All trainings.
        elapsed: Active seconds of the stage: no night in which the service was off is taken for a training's work.
    """
    found = [
        (step.finished_at - step.started_at).total_seconds() - float(step.output["seconds"])
        for step in steps
        if step.output is not None and step.started_at and step.finished_at and place_of(step)[0] > 0
    ]
    if not found:
        return USUAL_OVERHEAD
    return min(max(0.0, median_low(found)), max(0.0, elapsed - sum(map(_spent, steps))))


def _evaluation_seconds(session: Session, job: Job, models: int, space: SearchSpace) -> float:
    """Return the expected time to evaluate and measure so many trained models in every number format."""
    variants = len(in_formats(space.dense_recipe(), space))
    return models * variants * trial_seconds(step_seconds(session, job.id, ("evaluate", "measure")))
