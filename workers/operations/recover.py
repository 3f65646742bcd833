"""Trains one shape towards the dense model."""

import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

from safetensors.torch import save_file

from compressors.export.simulation import as_written
from compressors.network import EncoderNetwork
from compressors.recipe import Recipe
from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.cut import cut
from compressors.recovery.data import TrainingData
from compressors.recovery.pace import Paces
from compressors.recovery.prepare import PreparedData
from compressors.recovery.prepare import prepare
from compressors.recovery.quantization_aware import finishing
from compressors.recovery.quantization_aware import recover_quantized as train_quantized
from compressors.recovery.recover import Progress
from compressors.recovery.recover import recover as train
from compressors.recovery.taylor import add_taylor_orders
from compressors.recovery.taylor import has_taylor_orders
from compressors.recovery.taylor import taylor_importance
from compressors.recovery.teacher import TeacherCache
from compressors.torch_module import to_module
from infra.database.models import JsonObject
from infra.errors import InvalidInputError
from search.requests import Recover
from workers.operations.bench import Bench
from workers.operations.bench import bench
from workers.operations.inputs import JobInputs
from workers.operations.training import default_learning_rate
from workers.operations.training import default_losses
from workers.operations.training import held_texts
from workers.operations.training import training_data
from workers.runner.active_clock import ActiveClock
from workers.runner.operation import OperationContext

CHECKPOINT_SECONDS = 30.0
EVALUATION_SECONDS = 8.0
"""Training time between two evaluations, at least: a short training must not spend itself on them."""
FEWEST_EVALUATIONS = 3
"""Of even the shortest training, unless they take too much of its time."""
STATISTICS_TEXTS = 512
"""Texts that importance scores and the statistics of a healed model are taken of."""
_PROGRESS_SECONDS = 1.0


def recover(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Train a recipe's model within a time.

    ``{"inputs", "recipe", "parent", "finish", "name", "seconds", "request"}`` -> ``{"weights": path, "teacher": path |
    None, "curve", "start_score", "best_score", "improved", "steps", "seconds", "texts", "precision", "stopped"}``.

    ``name`` tells this recovery of the job from others: one that was interrupted goes on from its checkpoint. A recipe
    that names weights is trained on from there; one with a ``parent`` (a recipe with weights) is cut from the parent.
    ``finish``: the training knows about the few bits of the recipe's file. ``teacher`` is the file to keep for other
    hosts.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    request = Recover.model_validate(arguments["request"])
    work = bench(inputs, context)
    finish = bool(arguments["finish"])
    continued = arguments["recipe"]["weights"] is not None and not finish
    config, data, texts = _training(work, request, arguments["seconds"], continued, context)
    teacher = _teacher(work, data, config, context)
    directory = inputs.recovery(arguments["name"])
    network = _start(work, arguments, data, context)
    student = to_module(as_written(network) if finish else network)
    # A finish computes otherwise, and is the last: it neither needs nor teaches what is fast for the others.
    paces = None if finish else context.state.setdefault("paces", Paces())
    trainer = partial(train_quantized, recipe=Recipe.model_validate(arguments["recipe"])) if finish else train
    with ActiveClock() as clock:
        result = trainer(
            student,
            teacher,
            data,
            finishing(config).model_copy(update={"seconds": config.seconds}) if finish else config,
            checkpoint_dir=directory,
            on_progress=_Reporter(context, arguments["name"]),
            clock=clock,
            paces=paces,
        )
    weights = _write(directory / "weights.safetensors", result.state_dict)
    return {
        "weights": str(weights),
        "teacher": None if config.losses.hidden else str(inputs.teacher_file),
        "curve": [asdict(point) for point in result.curve],
        "start_score": result.start_score,
        "best_score": result.best_score,
        "improved": result.improved,
        "steps": result.steps,
        "seconds": result.seconds,
        "texts": texts,
        "precision": result.precision,
        "stopped": result.stopped,
    }


def _training(
    work: Bench, request: Recover, seconds: float, continued: bool, context: OperationContext
) -> tuple[RecoveryConfig, PreparedData, int]:
    """Return the config, the data, and how many texts these were made of; all recoveries of a job share the data."""
    found = context.state.get("training")
    texts, augmentation, held = found[0] if found else _texts(work, request)
    config = RecoveryConfig(
        seconds=seconds,
        losses=request.losses or default_losses(work.anatomy, texts, augmentation, held.tokens),
        learning_rate=request.learning_rate or default_learning_rate(work.anatomy, seconds, continued=continued),
        temperature=request.temperature,
        decay=request.decay,
        patience=request.patience,
        precision=request.precision,
        augmentation=augmentation,
        max_length=None,  # the encoder has cut the texts to the workload's length
        seed=work.inputs.seed,
        checkpoint_seconds=min(CHECKPOINT_SECONDS, seconds / 10),
        evaluations=evaluations(seconds),
    )
    if not found:
        found = ((texts, augmentation, held), prepare(texts, config, held))
        context.state["training"] = found
    return config, found[1], len(texts)


def _texts(work: Bench, request: Recover) -> tuple[TrainingData, Augmentation, TrainingData]:
    """Return the texts to train on, how to make more of them, and those of the search split that judge."""
    inputs, anatomy, seconds = work.inputs, work.anatomy, request.seconds
    held = held_texts(work.data.texts["search"], anatomy, seconds, inputs.seed)
    texts, augmentation = training_data(
        inputs, anatomy, seconds, use_labels=request.use_labels, held_tokens=held.tokens
    )
    return texts, augmentation, held


def evaluations(seconds: float) -> int:
    """Return how often a training of so many seconds is evaluated."""
    most = RecoveryConfig().evaluations
    return min(most, max(FEWEST_EVALUATIONS, int(seconds / EVALUATION_SECONDS)))


def _start(work: Bench, arguments: JsonObject, data: PreparedData, context: OperationContext) -> EncoderNetwork:
    """Return the network to train: trained weights, or the dense model or a healed one cut to the recipe."""
    recipe = Recipe.model_validate(arguments["recipe"])
    if recipe.weights is not None:
        return work.candidate_network(recipe)
    if arguments["parent"] is not None:
        context.progress({"doing": "cutting the healed model before"})
        parent = work.candidate_network(Recipe.model_validate(arguments["parent"]))
        return cut(parent, recipe, _statistics_texts(data))
    if recipe.criterion == "taylor" and not has_taylor_orders(work.calibration, work.network):
        context.progress({"doing": "measuring the importance of heads and channels"})
        add_taylor_orders(work.calibration, taylor_importance(work.network, _statistics_texts(data)))
    return work.candidate_network(recipe)


def _statistics_texts(data: PreparedData) -> TrainingData:
    """Return some hundred of the training texts, evenly taken from them."""
    return data.examples.subset(data.train[:: max(1, len(data.train) // STATISTICS_TEXTS)][:STATISTICS_TEXTS])


def _teacher(work: Bench, data: PreparedData, config: RecoveryConfig, context: OperationContext) -> TeacherCache:
    """Return the dense model's outputs: from the job's work directory, or computed now."""
    path = work.inputs.teacher_file
    if path.exists():
        teacher = TeacherCache.load(path)
        try:
            teacher.check(data.examples)
        except InvalidInputError:  # of other texts: the file is replaced
            path.unlink()
        else:
            return teacher

    def report(done: float) -> None:
        context.progress({"doing": "running the dense model on the training texts", "done": round(done, 3)})

    layers = range(len(work.network.layers)) if config.losses.hidden else ()
    return TeacherCache.build(work.network, data.examples, state_layers=layers, path=path, on_progress=report)


class _Reporter:
    """Passes on where a training is, about once a second."""

    def __init__(self, context: OperationContext, name: str) -> None:
        self._context, self._name = context, name
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last < _PROGRESS_SECONDS and progress.step < progress.steps:
            return
        self._last = now
        self._context.progress(
            {
                "doing": f"recovery training, step {progress.step} of {progress.steps}",
                "recovery": self._name,
                "step": progress.step,
                "steps": progress.steps,
                "loss": round(progress.loss, 5),
                "best_score": round(progress.best_score, 5),
                "seconds_left": round(progress.seconds_left, 1),
            }
        )


def _write(path: Path, tensors: JsonObject) -> Path:
    """Write a safetensors file that is there completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
    partial.replace(path)
    return path
