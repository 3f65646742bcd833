"""How well a table of building blocks predicts whole candidates that nobody has timed.

    python -m benchmarks.latency_table --model DIR --data FILE [--device onnxruntime|openvino] [--methods]
        [--widths N ...]

Times the blocks (every layer the same, one branch alone), predicts random candidates from them, then times those.
``--methods`` also times what sparsity and low rank do to the latency of the uncompressed shape. ``--widths`` times
feed-forward branches in steps of 8 channels above each of some widths, and says which step the device rewards there.
With ``--candidates 0`` only that is done.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import print_table
from compressors.anatomy import describe
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import calibrate
from compressors.export.baselines import build_baseline
from compressors.export.folder import input_names
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.options.levels import STEPS
from compressors.options.levels import low_ranks
from compressors.options.levels import width_levels
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from profilers.quality.encode import EncodedTexts
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import read_examples
from profilers.registry import get_profiler
from profilers.table import GROUP_BYTES
from profilers.table import race_many
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Estimate
from profilers.types import Workload
from search.branch_costs import TableCosts
from search.canonical import canonicalise
from search.latency_model import LatencyModel
from search.options import BranchTable
from search.options import WidthStep
from workers.operations.blocks import RANGE_TEXTS
from workers.operations.blocks import write_block
from workers.operations.formats import block_formats
from workers.operations.formats import branch_bits
from workers.operations.formats import device_defaults
from workers.operations.table import EFFORT
from workers.operations.table import branch_table
from workers.operations.table import plan
from workers.operations.table_block import Block
from workers.operations.width_steps import STEPS_SHARE
from workers.operations.width_steps import measure_steps
from workers.operations.width_steps import step_block
from workers.operations.width_steps import step_blocks

TASK = "sequence-classification"
SPARSITIES = (0.5, 0.9)
TEXTS = 32
"""Texts of the calibration, of which only the shapes matter here, and of the inputs that are timed."""


def random_recipe(network: EncoderNetwork, bits: tuple[int, ...], generator: np.random.Generator) -> Recipe:
    """Draw heads, width and bits for every branch; some branches and layers are removed."""
    anatomy = describe(network)
    layers = []
    for heads, width in zip(anatomy.heads, anatomy.intermediate_size, strict=True):
        attention, feed_forward = (int(generator.choice(bits)) for _ in range(2))
        layers.append(
            LayerRecipe.model_validate(
                {
                    "attention": {"heads": int(generator.integers(0, heads + 1)), "bits": attention},
                    "feed_forward": {
                        "intermediate_size": int(generator.choice(width_levels(width))),
                        "bits": feed_forward,
                    },
                    "removed": bool(generator.random() < 0.08),
                }
            )
        )
    return Recipe(layers=tuple(layers), criterion="magnitude", compensation="none")


def methods(network: EncoderNetwork) -> dict[str, Recipe]:
    """The uncompressed shape in 32 bits, with zeros in it, and factorised."""
    anatomy, layers = describe(network), len(network.layers)
    recipes = {"dense": Recipe.dense(layers)}
    for share in SPARSITIES:
        layer = LayerRecipe(
            attention=AttentionRecipe(sparsity=share, mask="magnitude"),
            feed_forward=FeedForwardRecipe(sparsity=share, mask="magnitude"),
        )
        recipes[f"{share:.0%} zeros"] = Recipe(layers=(layer,) * layers, compensation="none")
    width = max(anatomy.intermediate_size)
    break_even = width * anatomy.hidden_size // (width + anatomy.hidden_size)
    for rank in (break_even, *low_ranks(width, anatomy.hidden_size)):
        layer = LayerRecipe(feed_forward=FeedForwardRecipe(rank=rank))
        recipe = Recipe(layers=(layer,) * layers, factorization="plain", compensation="none")
        recipes[f"feed-forward rank {rank} ({rank / break_even:.0%} of break-even)"] = recipe
    return recipes


class Bench:
    """The model, the device and a folder for files."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.model, self.folder = arguments.model, folder
        self.network = load_network(arguments.model, TASK)
        texts = TextEncoder(arguments.model, 128).encode(read_examples(arguments.data).select(np.arange(TEXTS)))
        batch = texts.batch(range(TEXTS))
        inputs = {name: torch.from_numpy(batch[name]) for name in input_names(self.network)}
        self.calibration = calibrate(self.network, [inputs])
        self.profiler = get_profiler(arguments.device)
        self.workload = Workload(batch=arguments.batch, sequence_length=arguments.sequence)
        self.feeds = real_tokens(texts, self.workload)
        self.ranges = [texts.batch([index], arguments.sequence) for index in range(RANGE_TEXTS)]
        self.defaults = device_defaults(arguments.device, self.profiler.describe())
        options = {"realtime_priority": 20} if arguments.realtime else {}
        self.profile = DeviceProfile(name="local", profiler=arguments.device, options=options)

    @property
    def bits(self) -> tuple[int, ...]:
        """Bit-widths that candidates use."""
        return branch_bits(self.profiler.describe(), self.defaults)

    def race(
        self, artifacts: Mapping[str, Artifact], effort: Effort, *, group_bytes: int = GROUP_BYTES
    ) -> dict[str, Estimate]:
        """Time artifacts against the default export, as many in the same blocks as ``group_bytes`` allow."""
        reference = build_baseline("fp32", self.model, TASK, self.folder).path
        with self.profiler.open(self.profile, self.workload, feeds=self.feeds) as session:
            dense = session.load(Artifact(path=reference))
            return race_many(session, dense, artifacts, effort, group_bytes=group_bytes)

    def table(self) -> tuple[BranchTable, int, float]:
        """Measure the table; returns it with the number of models and the seconds of timing."""
        anatomy = describe(self.network)
        facts = (anatomy, self.profiler.describe(), self.defaults)
        blocks, steps = self.written(plan(*facts)), self.written(step_blocks(*facts))
        total = EFFORT.total_seconds or 0.0
        for_steps = STEPS_SHARE * total if steps else 0.0
        started = time.monotonic()
        named = {block.name: artifact for block, artifact in blocks.items()}
        ratios = self.race(named, EFFORT.model_copy(update={"total_seconds": total - for_steps}))
        found = branch_table({block: ratios[block.name] for block in blocks}, anatomy)
        found = found.model_copy(update={"width_steps": self.width_steps(steps, for_steps)})
        return found, len(blocks) + len(steps), time.monotonic() - started

    def written(self, blocks: Sequence[Block]) -> dict[Block, Artifact]:
        """Write models of the table."""
        return {
            block: write_block(self.network, block, self.defaults, self.folder, feeds=self.ranges) for block in blocks
        }

    def width_steps(self, artifacts: Mapping[Block, Artifact], seconds: float) -> tuple[WidthStep, ...]:
        """Time near widths, and decide on the step."""
        with self.profiler.open(self.profile, self.workload, feeds=self.feeds) as session:
            return measure_steps(session, artifacts, seconds, 0)

    def write(self, name: str, recipe: Recipe) -> tuple[Recipe, Artifact]:
        """Build a candidate as a job on the device would: in its preferred graph, quantisation and arithmetic."""
        update = {"quantization": self.defaults.quantization, "precision": self.defaults.precision}
        formed = canonicalise(recipe.model_copy(update=update), describe(self.network))
        formed = formed.model_copy(update={"graph": self.defaults.graph_for(formed)})
        path = self.folder / f"{name}.onnx"
        write_onnx(apply_recipe(self.network, self.calibration, formed), formed, path, feeds=self.ranges)
        return formed, Artifact(path=path, precision=formed.precision)


def real_tokens(texts: EncodedTexts, workload: Workload) -> dict[str, np.ndarray]:
    """Fill the workload with the tokens of texts."""
    ids = np.resize(np.concatenate(texts.input_ids), (workload.batch, workload.sequence_length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def compare_candidates(bench: Bench, count: int, seed: int, effort: Effort) -> None:
    """Predict, time and print the errors."""
    from scipy.stats import spearmanr

    table, blocks, seconds = bench.table()
    anatomy = describe(bench.network)
    model = LatencyModel(TableCosts(table, anatomy), anatomy, usual=bench.defaults.quantization)
    generator = np.random.default_rng(seed)
    built = {
        f"candidate {number}": bench.write(f"candidate{number}", random_recipe(bench.network, bench.bits, generator))
        for number in range(count)
    }
    measured = bench.race({name: artifact for name, (_, artifact) in built.items()}, effort)
    predicted = {name: model.predict(recipe).value for name, (recipe, _) in built.items()}
    errors = {name: predicted[name] / measured[name].value - 1 for name in built}
    print(f"\n{count} random candidates, {bench.workload.batch} x {bench.workload.sequence_length}")
    ordered = sorted(built, key=lambda name: measured[name].value)
    print_table([line(name, predicted[name], measured[name], errors[name]) for name in ordered])
    sizes = np.abs(list(errors.values()))
    correlation = spearmanr([predicted[name] for name in built], [measured[name].value for name in built]).statistic
    summary = {
        "blocks": str(blocks),
        "seconds": f"{seconds:.0f}",
        "median |error|": f"{np.median(sizes):.1%}",
        "p90 |error|": f"{np.quantile(sizes, 0.9):.1%}",
        "median error": f"{np.median(list(errors.values())):+.1%}",
        "Spearman": f"{correlation:.4f}",
    }
    print()
    print_table([summary])


def compare_widths(bench: Bench, bases: Sequence[int], seconds: float) -> None:
    """Time widths in steps of 8, and print what each channel more costs and which step is found."""
    formats = block_formats(bench.profiler.describe(), bench.defaults)
    for base in bases:
        widths = range(base, base + STEPS[-1] + 1, STEPS[0])
        blocks = [step_block(width, bits, precision) for bits, precision in formats for width in widths]
        found = bench.width_steps(bench.written(blocks), seconds * len(blocks))
        print(f"\nFeed-forward widths from {base}, {bench.workload.batch} x {bench.workload.sequence_length}")
        print_table(
            [{"width": str(width)} | {_format(entry): _time(entry, width) for entry in found} for width in widths]
        )
        for entry in found:
            print(f"Step {_format(entry)}: {entry.step or 'not clear'}")


def _format(entry: WidthStep) -> str:
    return f"{entry.bits} bits, {entry.precision}"


def _time(entry: WidthStep, width: int) -> str:
    time = entry.times.get(width - entry.base)
    return "1" if time is None else f"{time.value:.3f} ({time.low:.3f}-{time.high:.3f})"


def line(name: str, predicted: float, measured: Estimate, error: float) -> dict[str, str]:
    """One candidate."""
    return {
        "candidate": name,
        "predicted": f"{predicted:.4f}",
        "measured": f"{measured.value:.4f}",
        "95 %": f"{measured.low:.4f}-{measured.high:.4f}",
        "error": f"{error:+.1%}",
    }


def compare_methods(bench: Bench, effort: Effort) -> None:
    """Time sparsity and low rank."""
    built = {
        name: bench.write(f"method{i}", recipe)[1] for i, (name, recipe) in enumerate(methods(bench.network).items())
    }
    measured = bench.race(built, effort)
    base = measured["dense"].value
    print("\nUncompressed shape, 32 bits")
    print_table(
        [
            {
                "weights": name,
                "time": f"{ratio.value / base:.3f}",
                "95 %": f"{ratio.low / base:.3f}-{ratio.high / base:.3f}",
                "MB": f"{built[name].path.stat().st_size / 1e6:.1f}",
            }
            for name, ratio in measured.items()
        ]
    )


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text")
    parser.add_argument("--device", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--candidates", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=4.0, help="time limit for each candidate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", action="store_true")
    parser.add_argument("--widths", type=int, nargs="+", default=[], help="at least 64 below the full width")
    parser.add_argument("--realtime", action="store_true", help="ask for real-time priority while timing")
    arguments = parser.parse_args()
    effort = Effort(half_width=0.015, seconds=arguments.seconds, min_blocks=12, control_every=2, retreats=1)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, Path(scratch))
        if arguments.candidates:
            compare_candidates(bench, arguments.candidates, arguments.seed, effort)
        if arguments.widths:
            compare_widths(bench, arguments.widths, arguments.seconds)
        if arguments.methods:
            compare_methods(bench, effort)


if __name__ == "__main__":
    main()
