"""What every section needs: model and data, starting points, one training, and its outcome."""

import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from compressors.network import Layer
from compressors.options.scoring import divergences
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import TrainingData
from compressors.recovery.data import model_inputs
from compressors.recovery.data import sequential_batches
from compressors.recovery.objective import state_layers_for
from compressors.recovery.prepare import prepare
from compressors.recovery.recover import RecoveryResult
from compressors.recovery.recover import recover
from compressors.recovery.taylor import add_taylor_orders
from compressors.recovery.taylor import taylor_importance
from compressors.recovery.teacher import LiveTeacher
from compressors.recovery.teacher import Teacher
from compressors.recovery.teacher import TeacherCache
from compressors.torch_module import to_module
from paretune.artifact.encoder import CompressedEncoder
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import read_examples

Rows = list[dict[str, str]]
T = TypeVar("T")
STUDENTS_T = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""97.5 % quantile of Student's t for a number of seeds."""


@dataclass(frozen=True)
class Budget:
    """Length of one training: seconds of the processor, or steps."""

    seconds: float | None = None
    steps: int | None = None

    def __str__(self) -> str:
        """As in a table."""
        return f"{self.steps} steps" if self.seconds is None else f"{self.seconds / 60:g} min"

    def of(self, config: RecoveryConfig, seed: int) -> RecoveryConfig:
        """Return the config with this budget."""
        return config.model_copy(update={"seconds": self.seconds, "steps": self.steps, "seed": seed})


@dataclass(frozen=True)
class Bench:
    """What every run needs."""

    network: EncoderNetwork
    calibration: Calibration
    train: TrainingData
    dev: TrainingData
    test: TrainingData
    recipe: Recipe
    """The shape that is healed."""
    config: RecoveryConfig
    seeds: int
    only: Sequence[str] = ()
    """Rows of a section that are wanted, by name; empty: all."""
    teachers: dict[tuple[str, tuple[int, ...]], TeacherCache] = field(default_factory=dict)

    def wanted(self, rows: Mapping[str, T]) -> dict[str, T]:
        """Return the rows of a section that were asked for; all where none of its names were."""
        return {name: row for name, row in rows.items() if name in self.only} or dict(rows)

    def student(self, criterion: str = "obs", compensation: str = "least_squares") -> CompressedEncoder:
        """Return the unhealed shape, from one of the starting points."""
        update = {"criterion": criterion, "compensation": compensation}
        return to_module(apply_recipe(self.network, self.calibration, self.recipe.model_copy(update=update)))

    def shallow(self) -> CompressedEncoder:
        """Return a model of about the shape's size that has fewer layers, each of them complete."""
        wanted = sum(_size(layer, plan) for layer, plan in zip(self.network.layers, self.recipe.layers, strict=True))
        dense = sum(_size(layer, LayerRecipe()) for layer in self.network.layers)
        keep = max(1, round(wanted / dense * len(self.network.layers)))
        likeness = self.calibration.similarity
        kept = sorted(sorted(likeness, key=likeness.__getitem__)[:keep])
        layers = tuple(LayerRecipe(removed=layer.index not in kept) for layer in self.network.layers)
        return to_module(apply_recipe(self.network, self.calibration, Recipe(layers=layers)))

    def teacher(self, student: CompressedEncoder, config: RecoveryConfig, live: bool = False) -> Teacher:
        """Return the dense model's outputs for the training texts."""
        states = state_layers_for(student, len(self.network.layers), config)
        if live:
            return LiveTeacher(self.network, states)
        examples = prepare(self.train, config).examples
        key = (examples.digest, states)
        if key not in self.teachers:
            self.teachers.clear()  # states of all layers are large
            self.teachers[key] = TeacherCache.build(self.network, examples, state_layers=states)
        return self.teachers[key]


@dataclass(frozen=True)
class Healed:
    """One training and what it led to: per cent of the texts, and nats from the dense model on the test texts."""

    result: RecoveryResult
    dev: float
    test: float
    divergence: float


def load(
    model: Path,
    files: Mapping[str, Path],
    config: RecoveryConfig,
    *,
    heads: int,
    width: int,
    seeds: int,
    only: Sequence[str] = (),
) -> Bench:
    """Read model and data, calibrate, and find the removal orders.

    Args:
        model: Folder of a classifier.
        files: Labelled data by part: ``train``, ``dev``, ``test``.
        config: Everything of a training but its budget and seed.
        heads: Heads that every layer of the shape keeps.
        width: Feed-forward channels that every layer keeps.
        seeds: Trainings of each kind.
        only: Rows that are wanted; empty: all.
    """
    network = load_network(model, "sequence-classification")
    encoder = TextEncoder(model, 128)
    data = {name: encode(encoder, path) for name, path in files.items()}
    train = data["train"]
    some = train.subset(range(0, len(train), max(1, len(train) // 1024)))
    calibration = calibrate(network, map(model_inputs, sequential_batches(some, 32)))
    add_taylor_orders(calibration, taylor_importance(network, some))
    layer = LayerRecipe(attention=AttentionRecipe(heads=heads), feed_forward=FeedForwardRecipe(intermediate_size=width))
    recipe = Recipe(layers=(layer,) * len(network.layers))
    return Bench(network, calibration, train, data["dev"], data["test"], recipe, config, seeds, only)


def encode(encoder: TextEncoder, path: Path) -> TrainingData:
    """Read and encode a labelled file."""
    examples = read_examples(path, label_column="label")
    encoded = encoder.encode(examples)
    assert examples.labels is not None
    return TrainingData(
        [ids.tolist() for ids in encoded.input_ids],
        examples.labels.tolist(),
        [kinds.tolist() for kinds in encoded.token_type_ids],
    )


def heal(bench: Bench, make: Callable[[], CompressedEncoder], config: RecoveryConfig) -> Healed:
    """Run one recovery on a fresh student."""
    student = make()
    teacher = bench.teacher(student, config)
    result = recover(student, teacher, prepare(bench.train, config), config, clock=processor_seconds)
    distance = divergence(student, to_module(bench.network), bench.test)
    return Healed(result, accuracy(student, bench.dev), accuracy(student, bench.test), distance)


def processor_seconds() -> float:
    """Return the seconds that the processor has spent on this process, for each of torch's threads.

    On a quiet machine that is the time that passes; time in which others compute is not in it.
    """
    return time.process_time() / torch.get_num_threads()


@torch.no_grad()
def accuracy(module: CompressedEncoder, data: TrainingData) -> float:
    """Per cent."""
    module.eval()
    right = 0
    for batch in sequential_batches(data, 32):
        assert batch.labels is not None
        right += int((module(batch.input_ids, batch.attention_mask).argmax(-1) == batch.labels).sum())
    return 100 * right / len(data)


@torch.no_grad()
def divergence(module: CompressedEncoder, dense: CompressedEncoder, data: TrainingData) -> float:
    """Mean Kullback-Leibler divergence of the classes from the dense model's, in nats; it tells more than accuracy."""
    module.eval()
    found = [
        divergences(
            dense(batch.input_ids, batch.attention_mask), module(batch.input_ids, batch.attention_mask), classifier=True
        )
        for batch in sequential_batches(data, 32)
    ]
    return float(torch.cat(found).mean())


def interval(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and the 95 % half-width of Student's t over seeds."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    half_width = STUDENTS_T.get(len(values), 2.0) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{mean}±{half_width:.{digits}f}"


def _size(layer: Layer, plan: LayerRecipe) -> int:
    """Weights of a layer for each channel of the residual stream."""
    attention, branch = layer.attention, layer.feed_forward
    assert attention is not None
    assert branch is not None
    heads = attention.heads if plan.attention.heads is None else plan.attention.heads
    width = (
        branch.intermediate_size if plan.feed_forward.intermediate_size is None else plan.feed_forward.intermediate_size
    )
    return 4 * heads * attention.head_size + 2 * width
