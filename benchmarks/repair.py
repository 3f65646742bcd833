"""What a quick repair without labels gives back: matrices alone, normalisations alone, and both, as in a job.

    python -m benchmarks.repair --model DIR --data DIR [--shapes 9/768 6/384] [--texts 512] [--seeds 3]

``--data`` is a folder with ``train.jsonl`` (its texts only) and ``test.jsonl``. A shape is heads/channels of every
layer, ``without:2,4``: layers that are removed, or ``merge:2``: a layer that the one behind it is merged into. Layers
have 8 bits. Every seed draws other texts, of which the repair holds a quarter out. Divergence and accuracy are of all
of test, which no part of the repair has seen, with weights and activations rounded as the file rounds them; intervals
are Student's t over seeds, ``from none`` is the paired difference. The second table is over all shapes and seeds: the
mean ratio of the divergence to that without a repair, how often it was lower, and the worst.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.recovery.bench import encode
from benchmarks.recovery.bench import interval
from benchmarks.tables import print_table
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.network import EncoderNetwork
from compressors.options.scoring import Batch
from compressors.options.scoring import divergences
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.recovery.data import TrainingData
from compressors.recovery.data import model_inputs
from compressors.recovery.data import sequential_batches
from compressors.repair.sequential import EVERYTHING
from compressors.repair.sequential import repair_sequentially
from compressors.repair.walk import Parts
from compressors.repair.walk import Walk
from profilers.isa import this_cpu
from profilers.quality.encode import TextEncoder

BATCH = 32
SHAPES = ("9/768", "6/768", "6/384", "4/384", "without:4", "without:2,4")
TRIED: dict[str, Parts] = {
    "matrices": frozenset({"matrices"}),
    "normalisations": frozenset({"normalisations"}),
    "both": EVERYTHING,
}
MODELS = ("none", *TRIED)


@dataclass(frozen=True)
class Judged:
    """One model on the test texts."""

    divergence: float
    """Mean, in nats."""
    accuracy: float
    """Per cent."""
    seconds: float
    """Of the processor, that its repair took."""


class Judge:
    """Holds models against the dense one on the test texts."""

    def __init__(self, network: EncoderNetwork, test: TrainingData) -> None:
        batches = list(sequential_batches(test, BATCH))
        self._batches = [(model_inputs(batch), True) for batch in batches]
        self._labels = torch.cat([batch.labels for batch in batches if batch.labels is not None])
        self._network = network

    @torch.no_grad()
    def judge(self, candidate: EncoderNetwork, calibration: Calibration, recipe: Recipe, seconds: float) -> Judged:
        """Run the candidate as its file would."""
        walk = Walk(self._network, candidate, calibration, recipe, self._batches, frozenset())
        walk.run()
        dense, outputs = walk.outputs()
        accuracy = 100 * float((outputs.argmax(-1) == self._labels).double().mean())
        return Judged(float(divergences(dense, outputs, classifier=True).mean()), accuracy, seconds)


def main() -> None:
    """Repair every shape with every seed and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--texts", type=int, default=512, help="unlabelled texts, a quarter of them held out")
    parser.add_argument("--test-texts", type=int, help="evenly taken from test; default: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    network = load_network(arguments.model, "sequence-classification")
    encoder = TextEncoder(arguments.model, 128)
    train, test = (encode(encoder, arguments.data / f"{name}.jsonl") for name in ("train", "test"))
    if arguments.test_texts:
        test = test.subset(np.linspace(0, len(test) - 1, arguments.test_texts).astype(int).tolist())
    judge = Judge(network, test)
    found: dict[str, list[dict[str, Judged]]] = {shape: [] for shape in arguments.shapes}
    for seed in range(arguments.seeds):
        drawn = np.random.default_rng(seed).choice(len(train), arguments.texts, replace=False)
        batches = [model_inputs(batch) for batch in sequential_batches(train.subset(sorted(drawn.tolist())), BATCH)]
        calibration = calibrate(network, batches)
        for shape in arguments.shapes:
            found[shape].append(repaired(network, calibration, to_recipe(shape, len(network.layers)), batches, judge))
            print(f"seed {seed}, {shape}: done", file=sys.stderr, flush=True)
    print_table([row for shape, outcomes in found.items() for row in rows(shape, outcomes)])
    print()
    print_table(summary([outcome for outcomes in found.values() for outcome in outcomes]))


def to_recipe(shape: str, layers: int) -> Recipe:
    """Read a shape."""
    quantization = QuantizationRecipe(reduce_range=this_cpu().saturating_int8)
    whole, gone = LayerRecipe().with_branches(bits=8), LayerRecipe(removed=True)
    kind, _, positions = shape.partition(":")
    plan = [whole] * layers
    if kind == "without":
        for index in map(int, positions.split(",")):
            plan[index] = gone
    elif kind == "merge":
        plan[int(positions)], plan[int(positions) + 1] = whole.model_copy(update={"merged": 1}), gone
    else:
        heads, width = map(int, shape.split("/"))
        attention, branch = AttentionRecipe(heads=heads, bits=8), FeedForwardRecipe(intermediate_size=width, bits=8)
        plan = [LayerRecipe(attention=attention, feed_forward=branch)] * layers
    return Recipe(layers=tuple(plan), quantization=quantization, repair="sequential")


def repaired(
    network: EncoderNetwork,
    calibration: Calibration,
    recipe: Recipe,
    batches: Sequence[Batch],
    judge: Judge,
) -> dict[str, Judged]:
    """Return the candidate, and what each way to repair it makes of it, if that is kept."""
    candidate = apply_recipe(network, calibration, recipe)
    outcomes = {"none": judge.judge(candidate, calibration, recipe, 0.0)}
    for name, parts in TRIED.items():
        started = time.process_time()
        repair = repair_sequentially(network, candidate, calibration, recipe, batches, parts)
        seconds = time.process_time() - started
        outcomes[name] = judge.judge(repair.network, calibration, recipe, seconds)
    return outcomes


def rows(shape: str, outcomes: Sequence[dict[str, Judged]]) -> Iterator[dict[str, str]]:
    """Return the lines of a shape."""
    for name in MODELS:
        changes = [outcome[name].divergence - outcome["none"].divergence for outcome in outcomes]
        yield {
            "heads/FFN": shape,
            "re-solved": name,
            "KL": interval([outcome[name].divergence for outcome in outcomes], 4),
            "from none": interval(changes, 4),
            "accuracy": interval([outcome[name].accuracy for outcome in outcomes]),
            "CPU s": f"{np.mean([outcome[name].seconds for outcome in outcomes]):.1f}",
        }


def summary(outcomes: Sequence[dict[str, Judged]]) -> list[dict[str, str]]:
    """Return, for everything that is tried, how it does over all shapes and seeds."""
    found = []
    for name in MODELS[1:]:
        ratios = np.log([outcome[name].divergence / outcome["none"].divergence for outcome in outcomes])
        gains = [outcome[name].accuracy - outcome["none"].accuracy for outcome in outcomes]
        half_width = 2 * np.std(ratios, ddof=1) / len(ratios) ** 0.5 if len(ratios) > 1 else 0.0
        low, high = np.exp(ratios.mean() - half_width), np.exp(ratios.mean() + half_width)
        found.append(
            {
                "re-solved": name,
                "KL / KL of none": f"{np.exp(ratios.mean()):.3f} ({low:.3f}-{high:.3f})",
                "closer": f"{int((ratios < 0).sum())} of {len(ratios)}",
                "worst": f"{np.exp(ratios.max()):.3f}",
                "accuracy": interval(gains),
            }
        )
    return found


if __name__ == "__main__":
    main()
