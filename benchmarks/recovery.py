"""Quality against training time, for each starting point, loss, precision and kind of teacher; labels; peak memory.

    python -m benchmarks.recovery --model DIR --train FILE --dev FILE --test FILE
    python -m benchmarks.recovery ... --minutes 1 3 --seeds 3 --sections starts --results FILE
    python -m benchmarks.recovery --print FILE

Each section is appended to ``--results`` when it is done, so that a long benchmark can be run in pieces; ``--print``
shows all that is stored.

Times are seconds of the training loop, evaluations of the held-back part included. Accuracies are on texts that neither
training nor the choice of the checkpoint has seen. With several seeds, means have the half-width of a 95 % interval.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import print_table
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from compressors.network import Layer
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.config import Augmentation
from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import TrainingData
from compressors.recovery.data import model_inputs
from compressors.recovery.data import sequential_batches
from compressors.recovery.objective import state_layers_for
from compressors.recovery.precision import resolve_precision
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
from workers.runner.active_clock import ActiveClock

Rows = list[dict[str, str]]

SECTIONS = ("starts", "losses", "labels", "precision", "teacher", "memory")

MEMORY_BATCH, MEMORY_TOKENS = 32, 64

LOSSES = {
    "labels only": LossWeights(task=1, logits=0, hidden=0),
    "labels + logits": LossWeights(task=0.3, logits=0.7, hidden=0),
    "logits": LossWeights(task=0, logits=1, hidden=0),
    "logits + states": LossWeights(task=0, logits=1, hidden=1),
    "labels + logits + states": LossWeights(task=0.3, logits=0.7, hidden=1),
}


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
    teachers: dict[tuple[str, tuple[int, ...]], TeacherCache] = field(default_factory=dict)

    def student(self, criterion: str, compensation: str = "least_squares") -> CompressedEncoder:
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


def main() -> None:
    """Parse the arguments and print the tables that were asked for."""
    arguments = parse()
    if arguments.print:
        print_stored(arguments.print)
        return
    torch.set_num_threads(arguments.threads)
    bench = load(arguments)
    dense = to_module(bench.network)
    print(f"dense: dev {accuracy(dense, bench.dev):.2f}, test {accuracy(dense, bench.test):.2f}")
    budgets = [60 * minutes for minutes in arguments.minutes]
    shape = f"{arguments.heads} heads, FFN {arguments.width}, {arguments.threads} threads, {arguments.seeds} seeds"
    for section in arguments.sections:
        print(f"\n{section}: {shape}", flush=True)
        rows = TABLES[section](bench, budgets)
        print_table(rows)
        if arguments.results:
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"section": section, "shape": shape, "rows": rows}) + "\n")


def print_stored(path: Path) -> None:
    """Print the tables of every section that was stored, in the order in which they were finished."""
    for line in path.read_text(encoding="utf-8").splitlines():
        stored = json.loads(line)
        print(f"\n{stored['section']}: {stored['shape']}")
        print_table(stored["rows"])


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "train", "dev", "test"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--heads", type=int, default=4, help="heads that every layer keeps")
    parser.add_argument("--width", type=int, default=384, help="feed-forward channels that every layer keeps")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 5.0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=RecoveryConfig().learning_rate)
    parser.add_argument("--copies", type=int, default=0, help="augmented variants of each text")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--results", type=Path, help="JSON lines, to which each finished section is appended")
    parser.add_argument("--print", type=Path, metavar="FILE", help="print what --results has stored, and run nothing")
    arguments = parser.parse_args()
    missing = [name for name in ("model", "train", "dev", "test") if getattr(arguments, name) is None]
    if missing and not arguments.print:
        parser.error(f"give --{' --'.join(missing)}, or --print FILE")
    return arguments


def load(arguments: argparse.Namespace) -> Bench:
    """Read model and data, calibrate, and find the removal orders."""
    network = load_network(arguments.model, "sequence-classification")
    encoder = TextEncoder(arguments.model, 128)
    train, dev, test = (encode(encoder, path) for path in (arguments.train, arguments.dev, arguments.test))
    some = train.subset(range(0, len(train), max(1, len(train) // 1024)))
    calibration = calibrate(network, map(model_inputs, sequential_batches(some, 32)))
    add_taylor_orders(calibration, taylor_importance(network, some))
    layer = LayerRecipe(
        attention=AttentionRecipe(heads=arguments.heads),
        feed_forward=FeedForwardRecipe(intermediate_size=arguments.width),
    )
    config = RecoveryConfig(learning_rate=arguments.learning_rate, augmentation=Augmentation(copies=arguments.copies))
    recipe = Recipe(layers=(layer,) * len(network.layers))
    return Bench(network, calibration, train, dev, test, recipe, config, arguments.seeds)


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


def starts(bench: Bench, budgets: Sequence[float]) -> Rows:
    """OBS with compensation, Taylor with and without, magnitude, and whole layers removed."""
    students = {
        "OBS, compensated": lambda: bench.student("obs"),
        "Taylor, compensated": lambda: bench.student("taylor"),
        "Taylor, as it is": lambda: bench.student("taylor", "none"),
        "magnitude, as it is": lambda: bench.student("magnitude", "none"),
        "fewer layers": bench.shallow,
    }
    rows = []
    for name, make in students.items():
        unhealed = make()
        row = {"start": name, "dev 0": f"{accuracy(unhealed, bench.dev):.2f}"}
        row["test 0"] = f"{accuracy(unhealed, bench.test):.2f}"
        rows.append(row | after(bench, make, bench.config, budgets))
    return rows


def loss_terms(bench: Bench, budgets: Sequence[float]) -> Rows:
    """The terms of the loss, from the OBS start."""
    rows = []
    for name, weights in LOSSES.items():
        config = bench.config.model_copy(update={"losses": weights})
        rows.append({"loss": name} | after(bench, lambda: bench.student("obs"), config, budgets))
    return rows


def labels(bench: Bench, budgets: Sequence[float]) -> Rows:
    """The same training with labels and with the text only: points lost against the dense model, seed by seed."""
    dense = to_module(bench.network)
    whole = accuracy(dense, bench.test)
    rows = []
    for seconds in budgets:
        drops: dict[bool, list[float]] = {}
        for labelled in (True, False):
            data = bench.train if labelled else replace(bench.train, labels=None)
            given = replace(bench, train=data)
            drops[labelled] = []
            for seed in range(bench.seeds):
                config = bench.config.model_copy(update={"seconds": seconds, "seed": seed})
                _, student = heal(given, lambda: bench.student("obs"), config)
                drops[labelled].append(whole - accuracy(student, bench.test))
        rows.append(
            {
                "minutes": f"{seconds / 60:g}",
                "drop with labels": interval(drops[True]),
                "drop with text only": interval(drops[False]),
                "difference": interval([b - a for a, b in zip(drops[True], drops[False], strict=True)]),
            }
        )
    return rows


def memory(bench: Bench, _: Sequence[float]) -> Rows:
    """Peak memory of a training in a fresh process, beyond what the libraries take, at batch 32 x 64 tokens."""
    long = [row for row in bench.train.input_ids if len(row) > 1]
    stream = [token for row in long for token in row[1:-1]]
    width = MEMORY_TOKENS - 2
    ids = [[long[0][0], *stream[start : start + width], long[0][-1]] for start in range(0, len(stream) - width, width)]
    data = TrainingData(ids[: 20 * MEMORY_BATCH])
    dense_bytes = 4 * sum(parameter.numel() for parameter in to_module(bench.network).parameters())
    rows = []
    for name in ("logits", "logits + states"):
        config = bench.config.model_copy(
            update={"losses": LOSSES[name], "seconds": None, "steps": 12, "batch_size": MEMORY_BATCH, "evaluations": 2}
        )
        student = bench.student("obs")
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            examples = prepare(data, config).examples
            states = state_layers_for(student, len(bench.network.layers), config)
            TeacherCache.build(bench.network, examples, state_layers=states, path=folder / "teacher.safetensors")
            torch.save(student, folder / "student.pt")
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                peak = pool.submit(peak_bytes, folder, data, config, torch.get_num_threads()).result()
        rows.append(
            {
                "loss": name,
                "peak MB": f"{peak / 1e6:.0f}",
                "dense fp32 MB": f"{dense_bytes / 1e6:.0f}",
                "ratio": f"{peak / dense_bytes:.2f}",
            }
        )
    return rows


def peak_bytes(folder: Path, data: TrainingData, config: RecoveryConfig, threads: int) -> int:
    """Train in this (fresh) process, and return how far its resident memory rose (Linux).

    Counted is the student, what is held of the teacher's outputs, gradients, moments, the best weights and activations,
    and every page of a file that is mapped. Not counted are the libraries and the encoded texts.
    """
    torch.set_num_threads(threads)
    prepared = prepare(data, config)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts from here
    student = torch.load(folder / "student.pt", weights_only=False)  # written by this benchmark
    recover(student, TeacherCache.load(folder / "teacher.safetensors"), prepared, config)
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def precisions(bench: Bench, _: Sequence[float]) -> Rows:
    """f32 against bf16: tokens in a second, and the outcome after as many steps."""
    rows: Rows = []
    steps = 200
    for name in ("f32", "bf16"):
        if name == "bf16" and not multiplies_bf16():
            skipped = dict.fromkeys(list(rows[0])[1:], "-")
            rows.append({"precision": "bf16: skipped, this processor has no bf16 products"} | skipped)
            continue
        config = bench.config.model_copy(update={"precision": name, "seconds": None, "steps": steps})
        result, student = heal(bench, lambda: bench.student("obs"), config)
        tokens = np.mean([len(row) for row in bench.train.input_ids]) * config.batch_size * steps / result.seconds
        rows.append(
            {
                "precision": name,
                "auto takes it": str(resolve_precision(bench.config) == name),
                "tokens/s": f"{tokens:.0f}",
                "held-back KL": f"{-result.best_score:.4f}",
                "dev": f"{accuracy(student, bench.dev):.2f}",
                "test": f"{accuracy(student, bench.test):.2f}",
            }
        )
    return rows


def multiplies_bf16() -> bool:
    """Whether the processor has instructions for bf16 products (AMX or AVX512-BF16); emulated ones say nothing."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def teachers(bench: Bench, _: Sequence[float]) -> Rows:
    """Cached against live: seconds for a step, and what building the cache takes."""
    rows = []
    for weights in ("labels + logits", "labels + logits + states"):
        config = bench.config.model_copy(update={"losses": LOSSES[weights], "seconds": None, "steps": 60})
        student = bench.student("obs")
        for live in (False, True):
            bench.teachers.clear()
            started = time.perf_counter()
            teacher = bench.teacher(student, config, live)
            built = time.perf_counter() - started
            result = recover(bench.student("obs"), teacher, prepare(bench.train, config), config)
            rows.append(
                {
                    "loss": weights,
                    "teacher": "live" if live else "cached",
                    "ms/step": f"{1000 * result.seconds / result.steps:.0f}",
                    "build s": f"{built:.1f}",
                }
            )
    return rows


def after(
    bench: Bench, make: Callable[[], CompressedEncoder], config: RecoveryConfig, budgets: Sequence[float]
) -> dict[str, str]:
    """Heal for each budget with each seed; return mean and half-width of accuracies by column."""
    columns = {}
    for seconds in budgets:
        scores: dict[str, list[float]] = {"dev": [], "test": []}
        for seed in range(bench.seeds):
            _, student = heal(bench, make, config.model_copy(update={"seconds": seconds, "seed": seed}))
            scores["dev"].append(accuracy(student, bench.dev))
            scores["test"].append(accuracy(student, bench.test))
        for name, values in scores.items():
            columns[f"{name} {seconds / 60:g} min"] = interval(values)
    return columns


def heal(
    bench: Bench, make: Callable[[], CompressedEncoder], config: RecoveryConfig
) -> tuple[RecoveryResult, CompressedEncoder]:
    """Run one recovery on a fresh student."""
    student = make()
    teacher = bench.teacher(student, config)
    with ActiveClock() as clock:  # counts no time in which the process was stopped for the sake of a measurement
        return recover(student, teacher, prepare(bench.train, config), config, clock=clock), student


@torch.no_grad()
def accuracy(module: CompressedEncoder, data: TrainingData) -> float:
    """Per cent."""
    module.eval()
    right = 0
    for batch in sequential_batches(data, 32):
        assert batch.labels is not None
        right += int((module(batch.input_ids, batch.attention_mask).argmax(-1) == batch.labels).sum())
    return 100 * right / len(data)


def interval(values: Sequence[float]) -> str:
    """Mean, and the 95 % half-width of Student's t over seeds."""
    if len(values) < 2:
        return f"{values[0]:.2f}"
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(values), 2.0)
    return f"{np.mean(values):.2f}±{t * np.std(values, ddof=1) / len(values) ** 0.5:.2f}"


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


TABLES = {
    "starts": starts,
    "losses": loss_terms,
    "labels": labels,
    "precision": precisions,
    "teacher": teachers,
    "memory": memory,
}


if __name__ == "__main__":
    main()
