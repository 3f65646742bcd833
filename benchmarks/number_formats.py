"""Number formats of the same weights: speed, size and quality of each on this machine.

    python -m benchmarks.number_formats --model DIR --data FILE [--calibration FILE] [--keep 1.0 0.5]

The dense model and uniformly narrower ones are written in every integer format that ONNX Runtime runs, timed in the
same interleaved blocks beside fp32 and the one-line int8 quantiser, and evaluated on labelled text.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.tables import print_table
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.export.baselines import build_baseline
from compressors.export.defaults import default_graph
from compressors.export.defaults import default_quantization
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.isa import this_cpu
from profilers.measure import measure
from profilers.quality.encode import TextEncoder
from profilers.quality.evaluate import compare
from profilers.quality.evaluate import run_all
from profilers.quality.examples import read_examples
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Workload
from search.formats import NumberFormat
from search.formats import in_format

TASK = "sequence-classification"
DEVICE = DeviceProfile(name="benchmark", profiler="onnxruntime")


def formats(wanted: list[str]) -> dict[str, NumberFormat | None]:
    """Every integer format, with the ways to find ranges and to round; ``None`` is fp32."""
    dynamic = default_quantization("onnxruntime", saturating=this_cpu().saturating_int8)
    static = dynamic.model_copy(update={"scheme": "static"})
    weights = QuantizationRecipe(scheme="weight_only", embedding_bits=dynamic.embedding_bits)

    def by(base: QuantizationRecipe, **update: object) -> NumberFormat:
        return NumberFormat(8, base.model_copy(update=update))

    known: dict[str, NumberFormat | None] = {
        "fp32": None,
        "int8 dynamic": by(dynamic),
        "int8 dynamic, fp32 words": by(dynamic, embedding_bits=32),
        "int8 dynamic, 8-bit words": by(dynamic, embedding_bits=8),
        "int8 dynamic, gptq": by(dynamic, rounding="gptq"),
        "int8 static, percentile": by(static),
        "int8 static, entropy": by(static, ranges="entropy"),
        "int8 static, mse": by(static, ranges="mse"),
        "int8 static, smoothed": by(static, ranges="minmax", smoothing=0.5),
        "int8 weights": by(weights),
        "int4 weights": NumberFormat(4, weights),
        "int4 weights, gptq": NumberFormat(4, weights.model_copy(update={"rounding": "gptq"})),
    }
    return {name: known[name] for name in known if not wanted or name in wanted}


def uniform(network: EncoderNetwork, keep: float) -> Recipe:
    """Keep a share of the heads and channels of every layer."""
    layers = []
    for layer in network.layers:
        assert layer.attention is not None
        assert layer.feed_forward is not None
        heads = max(1, round(keep * layer.attention.heads))
        width = max(32, round(keep * layer.feed_forward.intermediate_size / 32) * 32)
        attention, feed_forward = AttentionRecipe(heads=heads), FeedForwardRecipe(intermediate_size=width)
        layers.append(LayerRecipe(attention=attention, feed_forward=feed_forward))
    return Recipe(layers=tuple(layers), graph=default_graph("onnxruntime", {8}))


def artifacts(
    network: EncoderNetwork,
    calibration: Calibration,
    feeds: list[dict[str, np.ndarray]],
    folder: Path,
    keep: float,
    wanted: list[str],
) -> Iterator[tuple[str, Artifact]]:
    """Write one shape in every format."""
    plain = uniform(network, keep)
    for name, number_format in formats(wanted).items():
        recipe = plain if number_format is None else in_format(plain, number_format)
        path = folder / f"{keep:g}-{name.replace(' ', '_')}.onnx"
        write_onnx(apply_recipe(network, calibration, recipe), recipe, path, feeds=feeds)
        yield f"{keep:.0%} {name}", Artifact(path=path)


def main() -> None:
    """Parse the arguments and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text and label")
    parser.add_argument("--calibration", type=Path, help="JSONL with text; default: the first texts of --data")
    parser.add_argument("--keep", type=float, nargs="+", default=[1.0, 0.5], help="shares of heads and channels")
    parser.add_argument("--formats", nargs="*", default=[], help="names of the rows; default: all")
    parser.add_argument("--examples", type=int, default=800, help="texts that are evaluated")
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=5.0, help="time limit for each file")
    arguments = parser.parse_args()
    network = load_network(arguments.model, TASK)
    encoder = TextEncoder(arguments.model, max_length=arguments.sequence_length)
    examples = read_examples(arguments.data, label_column="label")
    given = read_examples(arguments.calibration) if arguments.calibration else examples
    texts = encoder.encode(given.select(np.arange(min(256, len(given)))))
    rows = np.unique(np.linspace(0, len(examples) - 1, arguments.examples).astype(np.int64))
    evaluated = encoder.encode(examples.select(rows))
    labels = examples.labels[rows] if examples.labels is not None else None
    feeds = [texts.batch([index]) for index in range(64)]
    batches = [{k: torch.from_numpy(v) for k, v in texts.batch([i]).items()} for i in range(len(texts))]
    calibration = calibrate(network, batches)
    workload = Workload(sequence_length=arguments.sequence_length)
    with tempfile.TemporaryDirectory() as scratch, get_profiler("onnxruntime").open(DEVICE, workload) as session:
        folder = Path(scratch)
        reference = Artifact(path=build_baseline("fp32", arguments.model, TASK, folder).path)
        files = {"one-liner": Artifact(path=build_baseline("int8_one_liner", arguments.model, TASK, folder).path)}
        for keep in arguments.keep:
            files |= artifacts(network, calibration, feeds, folder, keep, arguments.formats)
        dense = session.load(reference)
        truth = run_all(dense, evaluated, TASK, workload, padded=False)
        effort = Effort(half_width=0.01, seconds=arguments.seconds, min_blocks=12, control_every=2)
        table = []
        for name, artifact in files.items():
            handle = session.load(artifact)
            timed = measure(session, dense, {name: handle}, effort)[name].measurement
            outputs = run_all(handle, evaluated, TASK, workload, padded=False)
            found, _ = compare(outputs, truth, labels, TASK, split="holdout", padded=False)
            session.unload(handle)
            speed = f"{timed.speedup:.2f} ({1 / timed.ratio.high:.2f}-{1 / timed.ratio.low:.2f})"
            table.append(
                {
                    "format": name,
                    "x fp32": speed + ("" if timed.status == "ok" else " noisy"),
                    "MB": f"{artifact.path.stat().st_size / 1e6:.1f}",
                    "drop, points": f"{100 * found.drop.value:+.2f}",
                    "KL": f"{found.divergence:.5f}",
                }
            )
    print(f"{arguments.model.name}, 1 x {arguments.sequence_length}, one thread")
    print_table(table)


if __name__ == "__main__":
    main()
