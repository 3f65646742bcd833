"""The stage ``recover``: shapes are trained one after the other, and every trained model becomes a trial.

What has been decided lies in ``job.prepared["recovery"]``; everything else follows from the rows of steps and trials,
so that repeating a tick changes nothing.
"""

from collections.abc import Sequence
from datetime import datetime
from statistics import median

from pydantic import BaseModel
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from compressors.recipe import Recipe
from compressors.recovery.racing import RaceRound
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.database.models import Trial
from infra.events import append_event
from infra.steps import create_step
from profilers.types import Quality
from search.candidates import recipe_of
from search.lifecycle import IN_FLIGHT
from search.lifecycle import job_trials
from search.lifecycle import request_tick
from search.lifecycle import set_stage
from search.plan import PlannedTrial
from search.prepared import Prepared
from search.race import Outcome
from search.race import Place
from search.race import Training
from search.race import next_training
from search.race import plan
from search.requests import JobRequest
from search.shapes import Shape
from search.shapes import in_formats
from search.space import build_space
from search.trials import create_planned

SOURCE = "recovery"
EVALUATION_SHARE = 0.4
"""Part of the recovery's time that evaluating and measuring the trained models may take."""
LEAST_SHARE = 0.02
"""A training that would get less of the time than this is not begun."""


class Healing(BaseModel):
    """Where the stage is.

    Attributes:
        started_at: Its beginning.
        finished_at: Its end.
        shapes: What races; ``None`` until they are chosen.
        rounds: Contenders and seconds of each round.
    """

    started_at: datetime
    finished_at: datetime | None = None
    shapes: tuple[Shape, ...] | None = None
    rounds: tuple[tuple[int, float], ...] = ()

    @classmethod
    def load(cls, job: Job) -> "Healing | None":
        """Read it from the job's row; ``None`` before the stage has begun."""
        found = (job.prepared or {}).get("recovery")
        return None if found is None else cls.model_validate(found)

    def save(self, session: Session, job: Job) -> None:
        """Write it to the job's row."""
        job.prepared = (job.prepared or {}) | {"recovery": self.model_dump(mode="json")}
        session.add(job)

    def seconds(self, now: datetime) -> float:
        """Return the time that the stage has taken so far."""
        return ((self.finished_at or now) - self.started_at).total_seconds()


def start(session: Session, job: Job, now: datetime) -> None:
    """Enter the stage; the next tick chooses the shapes."""
    set_stage(session, job, "recover")
    if Healing.load(job) is None:
        Healing(started_at=now).save(session, job)
    request_tick(session, job)


def advance(session: Session, job: Job, shapes: Sequence[Shape], now: datetime) -> bool:
    """Begin the next training if nothing is under way.

    Args:
        session: A write session.
        job: The job, locked, in the stage ``recover``.
        shapes: What the race is about, if it has not begun yet.
        now: Current time.

    Returns:
        Whether the stage is over.
    """
    request, prepared = JobRequest.model_validate(job.request), Prepared.load(job.prepared)
    healing = Healing.load(job)
    if healing is None or request.recover is None:
        return True
    if healing.finished_at is not None:
        return True
    if healing.shapes is None:
        healing = _begin(session, job, healing, request, prepared, shapes)
    steps = session.exec(select(Step).where(Step.job_id == job.id, Step.kind == "recover")).all()
    trials = [trial for trial in job_trials(session, job.id) if trial.source == SOURCE]
    waiting = any(step.state in {"queued", "running"} for step in steps)
    if waiting or any(trial.state in IN_FLIGHT for trial in trials):
        return False
    training = _next(healing, request, steps, trials)
    seconds = 0.0
    if training is not None:
        left = request.recover.seconds - healing.seconds(now)
        if training.last:
            left -= _evaluation_seconds(session, job, 1, prepared, request)
        seconds = left if training.last else min(training.seconds, left)
    if training is None or seconds < LEAST_SHARE * request.recover.seconds:
        healing.model_copy(update={"finished_at": now}).save(session, job)
        return True
    _create(session, job, healing, training, seconds)
    return False


def trained(session: Session, job: Job, step: Step, output: JsonObject) -> None:
    """Create a trial with the trained weights in each number format."""
    request, prepared = JobRequest.model_validate(job.request), Prepared.load(job.prepared)
    space = build_space(prepared.anatomy, prepared.capabilities, request.space, prepared.graph_defaults)
    recipe = Recipe.model_validate(step.payload["recipe"]).model_copy(update={"weights": output["weights"]})
    planned = [PlannedTrial(recipe=variant, source=SOURCE) for variant in in_formats(recipe, space)]
    known = set(session.exec(select(Trial.digest).where(Trial.job_id == job.id)))
    facts = {name: output[name] for name in ("seconds", "steps", "texts", "start_score", "best_score", "precision")}
    for trial in create_planned(session, job, planned, known, len(planned)):
        trial.facts = trial.facts | {"recovery": {"step": step.key} | facts}
        session.add(trial)


def _begin(
    session: Session,
    job: Job,
    healing: Healing,
    request: JobRequest,
    prepared: Prepared,
    shapes: Sequence[Shape],
) -> Healing:
    """Write down what races, and for how long."""
    rounds: list[RaceRound] = []
    if shapes and request.recover is not None:
        evaluation = _evaluation_seconds(session, job, len(shapes) + 1, prepared, request)
        total = request.recover.seconds
        rounds = plan(len(shapes), max(total - evaluation, (1 - EVALUATION_SHARE) * total), request.goal)
    else:
        append_event(session, job.id, "notice", {"message": "No shape is worth recovery training."})
    updated = healing.model_copy(
        update={"shapes": tuple(shapes), "rounds": tuple((entry.contenders, entry.seconds) for entry in rounds)}
    )
    updated.save(session, job)
    return updated


def _next(healing: Healing, request: JobRequest, steps: Sequence[Step], trials: Sequence[Trial]) -> Training | None:
    outcomes = {_place(step): _outcome(step, trials) for step in steps}
    costs = [shape.ratio for shape in healing.shapes or ()]
    return next_training(costs, [RaceRound(*entry) for entry in healing.rounds], outcomes, request.goal)


def _create(session: Session, job: Job, healing: Healing, training: Training, seconds: float) -> None:
    number, index = training.place
    shape = (healing.shapes or ())[index]
    recipe = shape.recipe.model_copy(update={"weights": training.weights})
    payload = {
        "recipe": recipe.model_dump(mode="json"),
        "seconds": seconds,
        "place": list(training.place),
        "origin": shape.origin,
        "number": shape.number,
    }
    key = f"recover:{number}:{index}"
    create_step(session, job_id=job.id, kind="recover", key=key, queue="compute", payload=payload)
    doing = {"message": f"Recovery training of shape {index + 1}, round {number + 1}, for {seconds:.0f} s."}
    append_event(session, job.id, "notice", doing | {"predicted_ratio": shape.ratio, "step": key})


def _place(step: Step) -> Place:
    number, index = step.payload["place"]
    return number, index


def _outcome(step: Step, trials: Sequence[Trial]) -> Outcome:
    if step.state != "done" or step.output is None:
        return Outcome(failed=True)
    weights: str = step.output["weights"]
    found = [Quality.model_validate(trial.quality) for trial in trials if _uses(trial, weights) and trial.quality]
    best = min(found, key=lambda quality: quality.drop.value, default=None)
    curve = tuple((point["seconds"], point["score"]) for point in step.output["curve"])
    if best is None:
        return Outcome(failed=True)
    error = (best.drop.high - best.drop.low) / (2 * 1.96)
    return Outcome(failed=False, weights=weights, drop=best.drop.value, drop_error=error, curve=curve)


def _uses(trial: Trial, weights: str) -> bool:
    recipe = recipe_of(trial.candidate)
    return recipe is not None and recipe.weights == weights


def _evaluation_seconds(session: Session, job: Job, models: int, prepared: Prepared, request: JobRequest) -> float:
    """Return the expected time to evaluate and measure so many trained models in every number format."""
    space = build_space(prepared.anatomy, prepared.capabilities, request.space, prepared.graph_defaults)
    variants = len(in_formats(space.dense_recipe(), space))
    total = 0.0
    for kind in ("evaluate", "measure"):
        statement = select(Step.started_at, Step.finished_at).where(
            Step.job_id == job.id, Step.kind == kind, col(Step.state) == "done"
        )
        durations = [(end - begin).total_seconds() for begin, end in session.exec(statement) if begin and end]
        total += median(durations) if durations else 0.0
    return models * variants * total
