"""The same weights as different graphs, and how fast each is.

    python -m benchmarks.graph_recipes --model DIR --data FILE [--device onnxruntime|openvino] [--variants | --defaults]

Times the exports that a user would make (``torch.onnx.export``, ONNX Runtime's transformer optimiser, dynamic int8,
NNCF) against the graphs that Paretune writes for the same uncompressed weights, all in the same interleaved blocks,
and evaluates each file on labelled text; in OpenVINO also with its bf16 hint, where the CPU is faster in bf16.
``--variants`` also times every alternative of the graph recipe, and in ONNX Runtime attention products in int8.
``--defaults`` times the best graphs in ONNX Runtime sessions with our options and with default ones instead: a lead
that only our options give would be none for users (:mod:`benchmarks.session_options`).
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from benchmarks.session_options import WAYS
from benchmarks.session_options import Request
from benchmarks.session_options import compare_ways
from benchmarks.tables import print_table
from compressors.anatomy import load_network
from compressors.export.baselines import build_baseline
from compressors.export.baselines import drop_weight_shapes
from compressors.export.checks import linears
from compressors.export.defaults import default_graph
from compressors.export.defaults import default_quantization
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.recipe import Bits
from compressors.recipe import GraphRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.isa import this_cpu
from profilers.measure import measure
from profilers.quality.encode import EncodedTexts
from profilers.quality.encode import TextEncoder
from profilers.quality.evaluate import compare
from profilers.quality.evaluate import run_all
from profilers.quality.examples import Examples
from profilers.quality.examples import read_examples
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Estimate
from profilers.types import Measurement
from profilers.types import Quality
from profilers.types import Workload

TASK = "sequence-classification"
CALIBRATION_TEXTS = 64
ONE_LINER, NNCF = "quantize_dynamic", "NNCF int8"
HINTED = ", bf16 hint"


@dataclass(frozen=True)
class Row:
    """One graph of the table, and what it is asked to compute in where it is floating point."""

    name: str
    artifact: Artifact

    def in_bf16(self) -> "Row":
        """Return the same file with OpenVINO's bf16 hint."""
        return Row(f"{self.name}{HINTED}", self.artifact.model_copy(update={"precision": "bf16"}))


@dataclass
class Bench:
    """What all rows are made from."""

    model: Path
    network: EncoderNetwork
    device: str
    feeds: list[dict[str, np.ndarray]]
    folder: Path

    def recipe(
        self, name: str, bits: Bits, graph: GraphRecipe, quantization: QuantizationRecipe, shape: Workload | None = None
    ) -> Row:
        """Write the dense network in ``bits`` bits with the given graph."""
        for linear in linears(self.network):
            linear.bits = bits
        recipe = Recipe.dense(len(self.network.layers)).model_copy(
            update={"graph": graph, "quantization": quantization}
        )
        path = self.folder / f"{name.replace(' ', '_')}.onnx"
        static = (shape.batch, shape.sequence_length) if shape else None
        write_onnx(self.network, recipe, path, feeds=self.feeds, static=static)
        return Row(name, Artifact(path=path))

    def baseline(self, name: str, label: str) -> Row:
        """Build what the user could have had in one line."""
        saturating = this_cpu().saturating_int8
        built = build_baseline(name, self.model, TASK, self.folder, self.feeds, saturating=saturating)
        return Row(label, Artifact(path=built.path, format=built.format))


def onnxruntime_rows(bench: Bench, shape: Workload, variants: bool) -> Iterator[Row]:
    """Exports and recipes for plain ONNX Runtime."""
    yield bench.baseline("int8_one_liner", ONE_LINER)
    yield bench.baseline("int8_static", "quantize_static")
    yield from optimizer_rows(bench)
    best, best8 = default_graph("onnxruntime", {32}), default_graph("onnxruntime", {8})
    dynamic = default_quantization("onnxruntime", saturating=this_cpu().saturating_int8)
    static = dynamic.model_copy(update={"scheme": "static"})
    yield bench.recipe("recipe fp32", 32, best, dynamic)
    yield bench.recipe("recipe int8 dynamic", 8, best8, dynamic)
    yield bench.recipe("recipe int8 static", 8, best8, static)
    yield bench.recipe("recipe int8 static, fixed shape", 8, best8, static, shape)
    if variants:
        for name, graph in alternatives(best):
            yield bench.recipe(f"fp32 {name}", 32, graph, dynamic)
        for name, quantization in (("dynamic", dynamic), ("static", static)):
            rounded = quantization.model_copy(update={"attention_products": True})
            yield bench.recipe(f"int8 {name}, attention products", 8, best8, rounded)
        for name, graph in alternatives(best8):
            yield bench.recipe(f"int8 {name}", 8, graph, dynamic)
            yield bench.recipe(f"int8 static, fixed shape, {name}", 8, graph, static, shape)


def openvino_rows(bench: Bench, shape: Workload, variants: bool) -> Iterator[Row]:
    """Exports and recipes for OpenVINO, whose shapes are fixed when it opens a file.

    Without the bf16 hint and, where the CPU is faster in it, with it: OpenVINO takes bf16 by itself there.
    """
    nncf, rows = bench.baseline("openvino_int8", NNCF), openvino_recipes(bench)
    yield nncf
    yield from rows.values()
    if this_cpu().fast_bf16:
        yield bench.baseline("fp32", "torch.onnx.export").in_bf16()
        yield nncf.in_bf16()
        for name in ("recipe fp32", "recipe int8 static", "recipe int8 static smoothed"):
            yield rows[name].in_bf16()
    if variants:
        yield from openvino_variants(bench)


def openvino_recipes(bench: Bench) -> dict[str, Row]:
    """The dense network in the usual graph, by name."""
    best, best8 = default_graph("openvino", {32}), default_graph("openvino", {8})
    plain, static = QuantizationRecipe(), default_quantization("openvino")
    rows = (
        bench.recipe("recipe fp32", 32, best, plain),
        bench.recipe("recipe int8 static", 8, best8, static.model_copy(update={"smoothing": 0.0})),
        bench.recipe("recipe int8 static smoothed", 8, best8, static),
        bench.recipe("recipe int8 weights", 8, best8, QuantizationRecipe(scheme="weight_only")),
    )
    return {row.name: row for row in rows}


def openvino_variants(bench: Bench) -> Iterator[Row]:
    """Every alternative of the graph recipe that OpenVINO reads."""
    for name, graph in alternatives(default_graph("openvino", {32})):
        if graph.operators == "standard":
            yield bench.recipe(f"fp32 {name}", 32, graph, QuantizationRecipe())
            yield bench.recipe(f"int8 {name}", 8, graph, default_quantization("openvino"))


def alternatives(best: GraphRecipe) -> Iterator[tuple[str, GraphRecipe]]:
    """The graph recipes that differ from ``best`` in one choice."""
    plain = {"layout": "batch_first"} if best.operators == "contrib" else {}
    choices: dict[str, dict[str, object]] = {
        "batch first": {"layout": "batch_first"},
        "standard operators": {"operators": "standard", "layout": "batch_first"},
        "packed qkv": {"packed_qkv": True},
        "separate qkv": {"packed_qkv": False},
        "fused attention": {**plain, "fused_attention": True},
        "skip norm": {"fused_skip_norm": True},
        "gelu elementary": {"gelu": "erf"},
        "gelu tanh": {"gelu": "tanh"},
        "whole last layer": {"first_token_head": False},
        "merged keys": {"merged_keys": True},
        "merged keys, gelu tanh": {"merged_keys": True, "gelu": "tanh"},
    }
    for name, update in choices.items():
        if name in ("fused attention", "skip norm") and best.operators == "standard":
            continue
        graph = best.model_copy(update=update)
        if graph != best:
            yield name, graph


def optimizer_rows(bench: Bench) -> Iterator[Row]:
    """ONNX Runtime's optimiser for transformer models on the default export, in fp32 and then int8."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.transformers import optimizer

    attention = next(layer.attention for layer in bench.network.layers if layer.attention)
    path = bench.folder / "optimizer.onnx"
    optimized = optimizer.optimize_model(
        str(bench.folder / "fp32.onnx"),
        model_type="bert",
        num_heads=attention.heads,
        hidden_size=bench.network.hidden_size,
    )
    optimized.save_model_to_file(str(path))
    yield Row("transformers.optimizer", Artifact(path=path))
    int8, cleaned = bench.folder / "optimizer_int8.onnx", bench.folder / "optimizer_cleaned.onnx"
    drop_weight_shapes(path, cleaned)
    quantize_dynamic(
        cleaned,
        int8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    yield Row("transformers.optimizer int8", Artifact(path=int8))


def main() -> None:
    """Parse the arguments and print one table a shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text and label")
    parser.add_argument("--calibration", type=Path, help="JSONL with text; default: the first texts of --data")
    parser.add_argument("--device", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--shapes", nargs="+", default=["1x128", "1x32", "8x128"])
    parser.add_argument("--examples", type=int, default=400, help="texts that are evaluated; 0: none")
    parser.add_argument("--seconds", type=float, default=10.0, help="time limit for each graph and shape")
    parser.add_argument("--half-width", type=float, default=0.01, help="target of the 95 %% interval")
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--defaults", action="store_true", help="compare session options instead")
    parser.add_argument("--realtime", action="store_true", help="ask for real-time priority while timing")
    arguments = parser.parse_args()
    network = load_network(arguments.model, TASK)
    encoder = TextEncoder(arguments.model, max_length=128)
    examples = read_examples(arguments.data, label_column="label")
    calibration = read_examples(arguments.calibration) if arguments.calibration else examples
    texts = encoder.encode(calibration.select(np.arange(min(CALIBRATION_TEXTS, len(calibration)))))
    chosen = np.linspace(CALIBRATION_TEXTS, len(examples) - 1, arguments.examples).astype(np.int64)
    evaluated = examples.select(np.unique(chosen))
    with tempfile.TemporaryDirectory() as scratch:
        feeds = [texts.batch([index]) for index in range(len(texts))]
        bench = Bench(arguments.model, network, arguments.device, feeds, Path(scratch))
        for text in arguments.shapes:
            batch, sequence = map(int, text.split("x"))
            shape = Workload(batch=batch, sequence_length=sequence)
            if arguments.defaults:
                report_defaults(bench, shape, arguments.seconds)
            else:
                report(bench, shape, encoder.encode(evaluated), evaluated, arguments)


def report(
    bench: Bench, shape: Workload, encoded: EncodedTexts, examples: Examples, arguments: argparse.Namespace
) -> None:
    """Build, time and evaluate every graph at one shape and print the table."""
    reference = bench.baseline("fp32", "torch.onnx.export")
    make = onnxruntime_rows if bench.device == "onnxruntime" else openvino_rows
    rows = list(make(bench, shape, arguments.variants))
    profile = DeviceProfile(
        name="local", profiler=bench.device, options={"realtime_priority": 20} if arguments.realtime else {}
    )
    effort = Effort(seconds=arguments.seconds, half_width=arguments.half_width)
    with get_profiler(bench.device).open(profile, shape) as session:
        base = session.load(reference.artifact)
        handles = {row.name: session.load(row.artifact) for row in rows}
        quality = {}
        if arguments.examples:
            everything = {reference.name: base, **handles}
            outputs = {name: run_all(item, encoded, TASK, shape, padded=True) for name, item in everything.items()}
            for name, output in outputs.items():
                quality[name] = compare(
                    output, outputs[reference.name], examples.labels, TASK, split="holdout", padded=True
                )[0]
        measured = {name: item.measurement for name, item in measure(session, base, handles, effort).items()}
    opponent = next(name for name in (ONE_LINER, f"{NNCF}{HINTED}", NNCF) if name in measured)
    slowest = measured[opponent].ratio.value
    print(f"\n{bench.device}, {shape.batch} x {shape.sequence_length}, one thread; 'x int8': against {opponent}")
    print_table([line(row, measured.get(row.name), quality.get(row.name), slowest) for row in [reference, *rows]])


def report_defaults(bench: Bench, shape: Workload, seconds: float) -> None:
    """Time the best graphs and the one-liner in sessions with our options and with default ones, and print the table.

    Args:
        bench: Model and inputs.
        shape: The workload; inputs are random tokens, as nothing here depends on them.
        seconds: For each model in each way.
    """
    dynamic = default_quantization("onnxruntime", saturating=this_cpu().saturating_int8)
    rows = [
        bench.baseline("fp32", "torch.onnx.export"),
        bench.baseline("int8_one_liner", ONE_LINER),
        bench.recipe("recipe fp32", 32, default_graph("onnxruntime", {32}), dynamic),
        bench.recipe("recipe int8 dynamic", 8, default_graph("onnxruntime", {8}), dynamic),
    ]
    tokens = np.random.default_rng(0).integers(1, 1000, (shape.batch, shape.sequence_length))
    ones, zeros = np.ones_like(tokens), np.zeros_like(tokens)
    feeds = bench.folder / "session_options.npz"
    np.savez(feeds, input_ids=tokens, attention_mask=ones, token_type_ids=zeros)
    request = Request(
        models={row.name: row.artifact.path for row in rows},
        feeds=feeds,
        workload=shape,
        seconds=seconds * len(rows),
    )
    print(f"\nonnxruntime, {shape.batch} x {shape.sequence_length}; x: against the reference opened in the same way")
    lines = []
    for way, found in compare_ways(request, bench.folder).items():
        for name, item in found.items():
            ratio = item.ratio
            lines.append(
                {
                    "session": WAYS[way],
                    "graph": name,
                    "ms": f"{item.milliseconds:.2f}",
                    "x fp32": f"{1 / ratio.value:.2f}",
                    "95 %": f"{1 / ratio.high:.2f}-{1 / ratio.low:.2f}",
                }
            )
    print_table(lines)


def megabytes(artifact: Artifact) -> float:
    """Size of all files of a model."""
    files = [artifact.path]
    if artifact.format == "openvino_ir":
        files.append(artifact.path.with_suffix(".bin"))
    return sum(file.stat().st_size for file in files) / 1e6


def line(row: Row, found: Measurement | None, judged: Quality | None, opponent: float) -> dict[str, str]:
    """One line of the table; the reference has no measurement."""
    ratio = found.ratio if found else Estimate(value=1.0, low=1.0, high=1.0)
    return {
        "graph": row.name,
        "ms": f"{found.latency_ms:.2f}" if found else "",
        "x fp32": f"{1 / ratio.value:.2f}",
        "95 %": f"{1 / ratio.high:.2f}-{1 / ratio.low:.2f}" if found else "",
        "x int8": f"{opponent / ratio.value:.2f}",
        "MB": f"{megabytes(row.artifact):.1f}",
        "accuracy": f"{100 * judged.value.value:.2f}" if judged else "",
        "agreement": f"{100 * judged.fidelity:.2f}" if judged else "",
        "status": found.status if found else "reference",
    }


if __name__ == "__main__":
    main()
