"""At equal latency, how close to the dense model each way of choosing what to remove stays.

    python -m benchmarks.allocation --model DIR --data FILE --calibration FILE [--ratios 0.2 0.167 0.143 0.125]

All candidates are int8 where the device has it and are cut to the same predicted latency; then they are timed in the
same blocks. *Uniform* keeps the same share of heads and channels in every layer, *global* ranks the units of all layers
together. Magnitude, Wanda and Taylor scores remove without an update of what stays, as published. *Solver* is the
dynamic program over the option database, *explored* what the search made of its answer. Divergence and accuracy are of
the torch module with rounded weights on texts that played no part; intervals are bootstrapped over texts.
"""

import argparse
import tempfile
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.latency_table import Bench
from benchmarks.tables import print_table
from compressors.anatomy import describe
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.export.folder import input_names
from compressors.export.onnx import write_onnx
from compressors.methods.removal_order import channel_energies
from compressors.methods.removal_order import head_energies
from compressors.network import EncoderNetwork
from compressors.options.branches import BranchLibrary
from compressors.options.scoring import ScoringSet
from compressors.options.stitch import StitchedModel
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.data import TrainingData
from compressors.recovery.taylor import taylor_importance
from profilers.quality.encode import EncodedTexts
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import read_examples
from profilers.quality.paired import mean_estimate
from profilers.types import Artifact
from profilers.types import Effort
from profilers.types import Estimate
from search.branch_costs import TableCosts
from search.branches import allowed_units
from search.latency_model import LatencyModel
from search.requests import Space
from search.space import SearchSpace
from search.space import build_space
from search.strategies.guided_space import GuidedSpace
from workers.operations.explore import PARTS
from workers.operations.explore import Exploration
from workers.operations.options import build_database

GRAM_TEXTS, ANCHOR_TEXTS, SCORING_TEXTS = 512, 128, 1024
MULTIPLE = 32

Scores = dict[int, Tensor]
"""Importance of each head, or of each channel, by layer."""


@dataclass(frozen=True)
class Candidate:
    """One row of the table."""

    name: str
    recipe: Recipe
    calibration: Calibration


def examples(network: EncoderNetwork, texts: EncodedTexts, start: int, stop: int) -> list[dict[str, Tensor]]:
    """Return texts as single model inputs."""
    names = input_names(network)
    return [{name: torch.from_numpy(texts.batch([i])[name]) for name in names} for i in range(start, stop)]


def criteria(
    network: EncoderNetwork, calibration: Calibration, texts: EncodedTexts
) -> Iterator[tuple[str, Scores, Scores]]:
    """Yield the published scores of heads and channels, each made comparable between layers as usual."""
    heads: dict[str, Scores] = {"magnitude": {}, "Wanda": {}}
    channels: dict[str, Scores] = {"magnitude": {}, "Wanda": {}}
    for layer in network.layers:
        attention, branch = layer.attention, layer.feed_forward
        assert attention is not None
        assert branch is not None
        output, down = attention.output.matrix(), branch.down.matrix()
        inputs = (attention.query.matrix(), attention.key.matrix(), attention.value.matrix())
        heads["magnitude"][layer.index] = head_energies(*inputs, output, attention.head_size).sqrt()
        channels["magnitude"][layer.index] = channel_energies(branch.up.matrix(), down).sqrt()
        context = calibration.at(layer.index, "attention_out").moments().second_moment().sqrt()
        middle = calibration.at(layer.index, "feed_forward_mid").moments().second_moment().sqrt()
        heads["Wanda"][layer.index] = (output.abs().double() * context).sum(0).view(attention.heads, -1).sum(1)
        channels["Wanda"][layer.index] = (down.abs().double() * middle).sum(0)
    for name in heads:
        yield name, _normalised(heads[name]), _normalised(channels[name])
    rows = [texts.input_ids[i].tolist() for i in range(GRAM_TEXTS)]
    found = taylor_importance(network, TrainingData(rows))
    yield "Taylor", found.heads, found.channels


def _normalised(scores: Scores) -> Scores:
    return {layer: values / values.square().mean().sqrt() for layer, values in scores.items()}


def with_orders(calibration: Calibration, heads: Scores, channels: Scores) -> Calibration:
    """Return a calibration in which the criterion ``magnitude`` stands for other scores."""
    orders = {f"{layer}.heads.magnitude": scores.argsort(stable=True) for layer, scores in heads.items()}
    orders |= {f"{layer}.channels.magnitude": scores.argsort(stable=True) for layer, scores in channels.items()}
    return replace(calibration, orders=orders)


class Cutter:
    """Cuts recipes with one free parameter to a predicted latency."""

    def __init__(self, space: SearchSpace, model: LatencyModel, bits: int, published: bool) -> None:
        self._space, self._model, self._bits = space, model, bits
        self._changes = {"criterion": "magnitude", "compensation": "none"} if published else {}

    def recipe(self, heads: list[int], widths: list[int]) -> Recipe:
        """Return the recipe with these heads and widths."""
        layers = tuple(
            LayerRecipe.model_validate(
                {
                    "attention": {"heads": h, "bits": self._bits},
                    "feed_forward": {"intermediate_size": w, "bits": self._bits},
                }
            )
            for h, w in zip(heads, widths, strict=True)
        )
        return self._space.canonical(self._space.dense_recipe().model_copy(update={"layers": layers, **self._changes}))

    def largest(self, shape: Callable[[float], tuple[list[int], list[int]]], ratio: float) -> Recipe:
        """Return the recipe of the largest share in (0, 1] whose predicted ratio is within ``ratio``."""
        fitting = [
            recipe
            for share in np.linspace(0.02, 1, 99)
            if self._model.predict(recipe := self.recipe(*shape(float(share)))).value <= ratio
        ]
        return fitting[-1]


def uniform_shape(space: SearchSpace) -> Callable[[float], tuple[list[int], list[int]]]:
    """The same share in every layer."""
    anatomy = space.anatomy

    def shape(share: float) -> tuple[list[int], list[int]]:
        heads = [max(1, round(share * full)) for full in anatomy.heads]
        widths = [max(1, round(share * full / MULTIPLE)) * MULTIPLE for full in anatomy.intermediate_size]
        return heads, widths

    return shape


def global_shape(heads: Scores, channels: Scores) -> Callable[[float], tuple[list[int], list[int]]]:
    """The best share of all heads, and of all channels."""

    def kept(scores: Scores, share: float, multiple: int) -> list[int]:
        everything = torch.cat(list(scores.values())).sort(descending=True).values
        threshold = everything[min(len(everything) - 1, int(share * len(everything)))]
        counts = [int((values >= threshold).sum()) for values in scores.values()]
        return [min(len(v), round(c / multiple) * multiple) for v, c in zip(scores.values(), counts, strict=True)]

    return lambda share: (kept(heads, share, 1), kept(channels, share, MULTIPLE))


class Study:
    """Everything that the rows are made and judged with."""

    def __init__(self, arguments: argparse.Namespace, bench: Bench) -> None:
        self.arguments, self.bench, self.network = arguments, bench, bench.network
        encoder = TextEncoder(arguments.model, 128)
        self.texts = encoder.encode(read_examples(arguments.calibration))
        held = read_examples(arguments.data, label_column="label")
        self.labels = held.labels
        self.calibration = calibrate(self.network, self._gram_batches())
        held_texts = encoder.encode(held)
        self.held = ScoringSet.collect(examples(self.network, held_texts, 0, len(held_texts)))
        self.judge = StitchedModel(self.network, self.held)
        self.table, _, seconds = bench.table()
        print(f"latency table: {seconds:.0f} s")
        anatomy, capabilities = describe(self.network), bench.profiler.describe()
        self.space = build_space(anatomy, capabilities, Space(), bench.defaults)
        self.model = LatencyModel(TableCosts(self.table, anatomy), anatomy, usual=bench.defaults.quantization)
        self.bits = min(bench.bits)

    def _gram_batches(self) -> list[dict[str, Tensor]]:
        order = sorted(range(GRAM_TEXTS), key=lambda i: len(self.texts.input_ids[i]))
        names = input_names(self.network)
        feeds = [self.texts.batch(order[start : start + 32]) for start in range(0, GRAM_TEXTS, 32)]
        return [{name: torch.from_numpy(batch[name]) for name in names} for batch in feeds]

    def candidates(self, ratios: list[float]) -> dict[float, list[Candidate]]:
        """Return the rows for each ratio."""
        found: dict[float, list[Candidate]] = {ratio: [] for ratio in ratios}
        exploration = self._exploration()
        seconds = self.arguments.seconds * len(ratios)
        for ratio, explored in zip(ratios, exploration.run(ratios, seconds), strict=True):
            found[ratio].append(Candidate("explored", explored[0].recipe, self.calibration))
            found[ratio].append(Candidate("solver", exploration.solve(ratio).recipe, self.calibration))
            cutter = Cutter(self.space, self.model, self.bits, published=False)
            recipe = cutter.largest(uniform_shape(self.space), ratio)
            found[ratio].append(Candidate("uniform, OBS", recipe, self.calibration))
        for name, heads, channels in criteria(self.network, self.calibration, self.texts):
            calibration = with_orders(self.calibration, heads, channels)
            cutter = Cutter(self.space, self.model, self.bits, published=True)
            for ratio in ratios:
                for kind, shape in (
                    ("uniform", uniform_shape(self.space)),
                    ("global", global_shape(heads, channels)),
                ):
                    found[ratio].append(Candidate(f"{kind}, {name}", cutter.largest(shape, ratio), calibration))
        return found

    def _exploration(self) -> Exploration:
        stop = GRAM_TEXTS + ANCHOR_TEXTS
        anchors = ScoringSet.collect(examples(self.network, self.texts, GRAM_TEXTS, stop))
        database = build_database(self.network, self.calibration, anchors)
        units = allowed_units(database, self.space, self.table)
        solver = GuidedSpace(units, self.space, self.model, drops=database.drops)
        last = min(len(self.texts), GRAM_TEXTS + SCORING_TEXTS)
        scoring = ScoringSet.collect(examples(self.network, self.texts, GRAM_TEXTS, last), PARTS)
        library = BranchLibrary(self.network, self.calibration, self.space.dense_recipe())
        return Exploration(library, scoring, solver, self.model, seed=0)

    def outcome(self, candidate: Candidate) -> tuple[np.ndarray, np.ndarray]:
        """Return the divergence of every held-out text, and whether its label was found."""
        library = BranchLibrary(self.network, candidate.calibration, candidate.recipe, cache_bytes=0)
        branches = {}
        for position, layer in enumerate(candidate.recipe.layers):
            for kind in ("attention", "feed_forward"):
                branch = getattr(layer, kind)
                if layer.removed:
                    field = "heads" if kind == "attention" else "intermediate_size"
                    branch = branch.model_copy(update={field: 0})
                branches[position, kind] = library.get(position, branch)
        divergence = self.judge.per_example(branches).numpy()
        predicted = self.judge.outputs(branches).argmax(-1).numpy()
        assert self.labels is not None
        return divergence, (predicted == self.labels[list(self.held.order)]).astype(np.float64)

    def timed(self, rows: dict[str, Candidate]) -> dict[str, Estimate]:
        """Build and time candidates."""
        artifacts = {}
        for number, (name, candidate) in enumerate(rows.items()):
            path = self.bench.folder / f"row{number}.onnx"
            network = apply_recipe(self.network, candidate.calibration, candidate.recipe)
            write_onnx(network, candidate.recipe, path, feeds=self.bench.ranges)
            artifacts[name] = Artifact(path=path, precision=candidate.recipe.precision)
        return self.bench.race(artifacts, Effort(half_width=0.02, seconds=2.0, min_blocks=12, control_every=2))

    def report(self, ratio: float, candidates: list[Candidate]) -> None:
        """Print the table of one ratio."""
        rows = {candidate.name: candidate for candidate in candidates}
        measured = self.timed(rows)
        outcomes = {name: self.outcome(candidate) for name, candidate in rows.items()}
        best = outcomes["explored"][0]
        print(f"\npredicted 1/{1 / ratio:.1f} of the default fp32 export")
        print_table([self._line(name, measured[name], *outcomes[name], best) for name in rows])

    def _line(
        self, name: str, time: Estimate, divergence: np.ndarray, correct: np.ndarray, best: np.ndarray
    ) -> dict[str, str]:
        mean = mean_estimate(divergence, lowest=0.0, highest=np.inf)
        excess = mean_estimate(divergence - best, lowest=-np.inf, highest=np.inf)
        return {
            "allocation": name,
            "x fp32": f"{1 / time.value:.2f}",
            "KL": f"{mean.value:.4f}",
            "95 %": f"{mean.low:.4f}-{mean.high:.4f}",
            "KL above explored": f"{excess.value:+.4f}",
            "95 % of it": f"{excess.low:+.4f} to {excess.high:+.4f}",
            "accuracy": f"{100 * correct.mean():.2f}",
        }


def main() -> None:
    """Parse the arguments and print one table a ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text and label: what is reported")
    parser.add_argument("--calibration", type=Path, required=True, help="JSONL with text")
    parser.add_argument("--device", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--ratios", type=float, nargs="+", default=[1 / 5, 1 / 6, 1 / 7, 1 / 8])
    parser.add_argument("--seconds", type=float, default=20.0, help="of exploring, for each ratio")
    parser.add_argument("--realtime", action="store_true", help="ask for real-time priority while timing")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        study = Study(arguments, Bench(arguments, Path(scratch)))
        for ratio, candidates in study.candidates(arguments.ratios).items():
            study.report(ratio, candidates)


if __name__ == "__main__":
    main()
