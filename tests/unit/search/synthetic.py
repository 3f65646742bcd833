"""A job whose model exists on paper only: quality and latency follow from formulas with a known optimum.

The rows are real (SQLite); steps are executed here, in order, in place of the workers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta

from sqlmodel import Session
from sqlmodel import SQLModel
from sqlmodel import select

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import BaselineCandidate
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import Recipe
from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import Blob
from infra.database.models import Dataset
from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Model
from infra.database.models import Step
from infra.database.models import Trial
from infra.errors import ParetuneError
from infra.errors import RunnerError
from profilers.types import Capabilities
from profilers.types import Estimate
from profilers.types import Fusions
from profilers.types import Measurement
from profilers.types import Quality
from search import coordinator
from search.candidates import parse_candidate
from search.job_clock import note_time
from search.options import Option
from search.options import OptionDatabase
from search.options import Unit
from search.prepared import GraphDefaults
from search.prepared import Prepared
from search.requests import JobRequest
from search.service import create_job

LAYERS, HEADS, WIDTH = 3, 4, 8
ANATOMY = Anatomy(
    model_type="bert",
    task="sequence-classification",
    layers=LAYERS,
    hidden_size=16,
    heads=(HEADS,) * LAYERS,
    head_size=4,
    intermediate_size=(WIDTH,) * LAYERS,
    vocabulary_size=100,
    max_sequence_length=64,
    labels=("no", "yes"),
    parameters=10_000,
    has_token_types=True,
)
CAPABILITIES = Capabilities(profiler="onnxruntime", available=True)
HALVING = 40.0
"""Seconds of recovery training that halve what a shape has lost."""
FOREVER = 0.1
"""Part of the loss that no training gives back."""
BASELINES = {"fp32": (1.0, 0.0, 1000), "int8_one_liner": (0.45, 0.004, 300)}
ATTENTION_IMPORTANCE = (0.02, 0.10, 0.01)
FEED_FORWARD_IMPORTANCE = (0.10, 0.01, 0.03)


def kept(value: int | None, full: int) -> float:
    return 1.0 if value is None else value / full


def true_ratio(recipe: Recipe) -> float:
    """Additive latency; int8 makes a branch cost 0.4."""
    total = 0.1
    for layer in recipe.layers:
        if layer.removed:
            continue
        for share, bits, part in (
            (kept(layer.attention.heads, HEADS), layer.attention.bits, 0.1),
            (kept(layer.feed_forward.intermediate_size, WIDTH), layer.feed_forward.bits, 0.2),
        ):
            total += part * share * (0.4 if bits == 8 else 1.0)
    return total


def true_drop(recipe: Recipe) -> float:
    """Additive loss: what is removed of each branch, squared, times the branch's importance."""
    total = 0.0
    for index, layer in enumerate(recipe.layers):
        heads = 0.0 if layer.removed else kept(layer.attention.heads, HEADS)
        width = 0.0 if layer.removed else kept(layer.feed_forward.intermediate_size, WIDTH)
        total += ATTENTION_IMPORTANCE[index] * (1 - heads) ** 2 + FEED_FORWARD_IMPORTANCE[index] * (1 - width) ** 2
        total += 0.0005 * (not layer.removed) * ((layer.attention.bits == 8) + (layer.feed_forward.bits == 8))
    return total


def true_size(recipe: Recipe) -> int:
    return round(100 + 900 * (true_ratio(recipe) - 0.1))


def around(value: float, relative: float = 0.01) -> Estimate:
    margin = abs(value) * relative
    return Estimate(value=value, low=value - margin, high=value + margin)


def quality(drop: float, split: str = "search") -> Quality:
    return Quality(
        metric="accuracy",
        value=around(0.9 - drop, 0.001),
        dense=0.9,
        drop=Estimate(value=drop, low=drop - 0.002, high=drop + 0.002),
        divergence=drop * 2,
        fidelity=max(0.0, 1 - 4 * drop),  # of eight changed predictions, five were right
        examples=400,
        split=split,
        padded=split == "holdout",
    )


def measurement(ratio: float, seconds: float = 1.0, status: str = "ok") -> Measurement:
    return Measurement(
        status=status,
        ratio=around(ratio),
        latency_ms=20 * ratio,
        reference_ms=20.0,
        p90_ratio=ratio,
        control_ratio=around(1.0),
        blocks=20,
        dropped_blocks=0,
        seconds=seconds,
    )


@dataclass
class Bench:
    """A database with one owner's model, dataset and device, and a clock that steps move on.

    Attributes:
        fails: Digests whose evaluation fails, and keys of trainings that fail.
        mismatches: Digests whose file computes something else than their network.
        unfused: Of every trial: whether its graph lacks a fused operator.
        reference_norms: Norms that are fused in the reference, of seven.
        useless: Keys of trainings that make nothing better.
        seconds: Simulated duration of each step.
        rounding: What a healed model loses by int8, unless its training knew about it.
        longest: Seconds after which a training has run out of patience.
        slow_learning: Seconds that finding out about the model and the device takes beyond its steps.
    """

    database: Database
    now: datetime = field(default_factory=utcnow)
    fails: set[str] = field(default_factory=set)
    mismatches: set[str] = field(default_factory=set)
    unfused: Callable[[Trial], bool] = field(default=lambda _: False)
    reference_norms: int = 7
    useless: set[str] = field(default_factory=set)
    seconds: float = 1.0
    rounding: float = 0.0
    longest: float = 1e9
    slow_learning: float = 0.0
    in_flight: int = 2
    labelled: bool = True
    executed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        SQLModel.metadata.create_all(self.database.engine)
        with self.database.write_session() as session:
            session.add(Blob(sha256="0" * 64, size=1))
            session.flush()
            session.add(Model(id="model", owner="me", name="m", state="ready", architecture="bert"))
            session.add(
                Dataset(
                    id="data", owner="me", name="d", format="jsonl", columns=["text", "label"], rows=9, sha256="0" * 64
                )
            )
            device = Device(id="device", name="local-cpu", profiler="onnxruntime")
            device.capabilities = CAPABILITIES.model_dump(mode="json")
            session.add(device)

    def submit(self, **changes: object) -> str:
        """Create a job and bring it to the search stage."""
        request = {
            "model_id": "model",
            "dataset_id": "data",
            "budget": {"seconds": None, "trials": 30},
            "strategy": "direct",
            "space": {"head_step": 1, "ffn_step": 1, "kinds": ["heads", "ffn", "depth", "bits"]},
        } | changes
        with self.database.write_session() as session:
            job = create_job(session, "me", JobRequest.model_validate(request))
            inspect = session.exec(select(Step).where(Step.job_id == job.id, Step.kind == "inspect")).one()
            inspect.state = "done"
            job.state, job.started_at = "running", self.now
            job.prepared = prepared(self.labelled).model_dump(mode="json")
            session.add(job)
            session.add(inspect)
            coordinator.start_trials(session, job)
            return job.id

    def run(self, job_id: str, *, most: int = 10_000) -> Job:
        """Execute steps until none is queued."""
        for _ in range(most):
            with self.database.read_session() as session:
                step = session.exec(
                    select(Step).where(Step.job_id == job_id, Step.state == "queued").order_by(Step.created_at, Step.id)
                ).first()
            if step is None:
                break
            self.execute(step.id)
        with self.database.read_session() as session:
            return session.exec(select(Job).where(Job.id == job_id)).one()

    def wait(self, job_id: str, seconds: float) -> None:
        """Let time pass in which no worker does anything, but the service runs."""
        with self.database.write_session() as session:
            self.pass_time(session, session.exec(select(Job).where(Job.id == job_id)).one(), seconds)

    def pass_time(self, session: Session, job: Job, seconds: float) -> None:
        """Move the clock on; maintenance looks at the job twice a minute."""
        end = self.now + timedelta(seconds=seconds)
        while self.now < end:
            self.now = min(end, self.now + timedelta(seconds=30))
            note_time(session, job, self.now)

    def execute(self, step_id: str) -> None:
        """Do the work of one step and commit it."""
        self.now += timedelta(seconds=self.seconds)
        with self.database.write_session() as session:
            step = session.exec(select(Step).where(Step.id == step_id)).one()
            job = session.exec(select(Job).where(Job.id == step.job_id)).one()
            trial = session.exec(select(Trial).where(Trial.id == step.trial_id)).one() if step.trial_id else None
            step.state, step.finished_at = "done", self.now
            step.started_at = self.now - timedelta(seconds=self.seconds)
            session.add(step)
            self.executed.append(step.key)
            if step.kind == "recover":
                self.recover(session, job, step)
            elif step.kind in ("table", "options"):
                self.learn(session, job, step)
            elif step.kind == "audit":
                trial.facts = trial.facts | {"audit": {"ok": trial.digest not in self.mismatches}}
                session.add(trial)
                coordinator.after_audit(session, job, self.now)
            elif step.kind == "confirm":
                self.confirm(session, job, step)
            elif trial is None:
                coordinator.tick(session, job, self.now, in_flight=self.in_flight)
            elif trial.digest in self.fails and step.kind == "evaluate":
                coordinator.trial_failed(session, job, trial, self.error(), self.now)
            else:
                self.work(session, job, trial, step.kind)

    def learn(self, session: Session, job: Job, step: Step) -> None:
        """What the stages of these steps do when they finish; branch times are counted, not measured."""
        if step.kind == "options":
            job.prepared = job.prepared | {"options": option_database().model_dump(mode="json")}
            session.add(job)
        if {"table", "options"} <= set(self.executed):
            self.pass_time(session, job, self.slow_learning)
            coordinator.start_search(session, job, self.now)

    def work(self, session: Session, job: Job, trial: Trial, kind: str) -> None:
        ratio, drop, size = truth(trial)
        drop += self.rounding * merely_rounded(trial)
        if kind == "evaluate":
            trial.quality, trial.size_bytes = quality(drop).model_dump(mode="json"), size
            coordinator.after_evaluate(session, job, trial, self.now)
        elif kind == "measure":
            trial.measurement = self.measured(trial, ratio)
            coordinator.after_measure(session, job, trial, self.now)
        session.add(trial)

    def measured(self, trial: Trial, ratio: float) -> JsonObject:
        """What a device measures that names its fused operators."""
        seven = {"norms": 7}
        found = {"norms": 6 if self.unfused(trial) else 7}
        counted = Fusions(
            expected=seven, found=found, reference_expected=seven, reference_found={"norms": self.reference_norms}
        )
        update = {"fusions": counted, "fusion_parity": counted.parity}
        return measurement(ratio).model_copy(update=update).model_dump(mode="json")

    def confirm(self, session: Session, job: Job, step: Step) -> None:
        for trial_id in step.payload["trials"]:
            trial = session.exec(select(Trial).where(Trial.id == trial_id)).one()
            ratio, drop, _ = truth(trial)
            drop += self.rounding * merely_rounded(trial)
            trial.holdout = quality(drop, "holdout").model_dump(mode="json")
            trial.final_measurement = self.measured(trial, ratio)
            session.add(trial)
            coordinator.after_confirm(session, job, trial)

    def recover(self, session: Session, job: Job, step: Step) -> None:
        """Train: what a shape loses is halved by every ``HALVING`` seconds, except what nothing can give back."""
        step.state = "running"
        seconds = min(step.payload["seconds"], self.longest)
        self.pass_time(session, job, seconds)
        step.state, step.finished_at = "done", self.now
        recipe = Recipe.model_validate(step.payload["recipe"])
        if step.key in self.fails:
            step.state, step.error = "failed", self.error().to_dict()
            session.add(step)
            coordinator.recover_failed(session, job, step, self.error())
            return
        before = 0 if recipe.weights is None else trained_seconds(recipe)
        after = before + round(seconds)
        scores = [(float(part), -true_drop(recipe) * 0.5 ** (part / HALVING)) for part in (before, after)]
        shape = recipe.model_copy(update={"weights": None}).digest
        step.output = {
            "weights": f"{shape[:32]}{after:032d}",
            "curve": [{"seconds": seconds - before, "score": score} for seconds, score in scores],
            "seconds": after - before,
            "steps": 10 * (after - before),
            "texts": 100,
            "start_score": scores[0][1],
            "best_score": scores[1][1],
            "improved": step.key not in self.useless,
            "precision": "f32",
        }
        session.add(step)
        coordinator.after_recover(session, job, step, step.output)

    @staticmethod
    def error() -> ParetuneError:
        return RunnerError("The runner was killed by signal 9.", hint="Give it more memory.")

    def trials(self, job_id: str) -> list[Trial]:
        with self.database.read_session() as session:
            return list(session.exec(select(Trial).where(Trial.job_id == job_id).order_by(Trial.number)))


def truth(trial: Trial) -> tuple[float, float, int]:
    candidate = parse_candidate(trial.candidate)
    if isinstance(candidate, BaselineCandidate):
        return BASELINES[candidate.name]
    recipe = candidate.recipe
    drop = true_drop(recipe)
    if recipe.weights is not None:
        drop *= FOREVER + (1 - FOREVER) * 0.5 ** (trained_seconds(recipe) / HALVING)
    return true_ratio(recipe), drop, true_size(recipe)


def merely_rounded(trial: Trial) -> bool:
    """Whether an int8 model has weights that were trained in floating point: their name is that of another recipe."""
    candidate = parse_candidate(trial.candidate)
    if isinstance(candidate, BaselineCandidate) or candidate.recipe.weights is None:
        return False
    recipe = candidate.recipe.model_copy(update={"weights": None})
    rounded = any(8 in (layer.attention.bits, layer.feed_forward.bits) for layer in recipe.layers)
    return rounded and not candidate.recipe.weights.startswith(recipe.digest[:32])


def trained_seconds(recipe: Recipe) -> int:
    assert recipe.weights is not None
    return int(recipe.weights[32:])


def option_database() -> OptionDatabase:
    """Every width in both formats, with errors as the calibration would give them."""
    units = []
    for layer in range(LAYERS):
        attention, feed_forward = [], []
        for bits in (32, 8):
            for heads in range(0 if bits == 32 else 1, HEADS + 1):
                recipe = AttentionRecipe(heads=heads, bits=bits)
                attention.append(Option(attention=recipe, error=(1 - heads / HEADS) ** 2))
            for width in range(0 if bits == 32 else 1, WIDTH + 1):
                ffn = FeedForwardRecipe(intermediate_size=width, bits=bits)
                feed_forward.append(Option(feed_forward=ffn, error=(1 - width / WIDTH) ** 2))
        units.append(Unit(layer=layer, branch="attention", options=tuple(attention)))
        units.append(Unit(layer=layer, branch="feed_forward", options=tuple(feed_forward)))
    return OptionDatabase(units=tuple(units))


def prepared(labelled: bool = True) -> Prepared:
    return Prepared(
        anatomy=ANATOMY,
        capabilities=CAPABILITIES,
        labelled=labelled,
        graph_defaults=GraphDefaults(),
        dense_size_bytes=1000,
    )
