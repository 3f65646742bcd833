"""What each kind of compression alone gives on this device: speed, size, and distance from the dense model.

    python -m benchmarks.method_value --model DIR --data FILE --calibration FILE [--devices onnxruntime openvino]

Every method is applied to the whole model in its uncompressed shape, built as an export is, and timed against the dense
fp32 model in the same graph, in the same interleaved blocks. Speed-ups have 95 % intervals over blocks; divergence is
KL(dense || model) of the file itself, run by ONNX Runtime, on texts that the calibration has not seen, with a 95 %
interval over texts.
*Compressed* is the file through zlib: what a download or a disk image might save. Ranks are given as shares of the
break-even rank, at which two thin matrices hold as many weights as the one that they replace.

Built files stay in ``--folder``, where a second run finds them: the first may run beside other work, the second is
quick and can have the machine for itself.
"""

import argparse
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.latency_table import real_tokens
from benchmarks.tables import print_table
from compressors.anatomy import describe
from compressors.anatomy import load_network
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.description import Anatomy
from compressors.export.defaults import default_graph
from compressors.export.defaults import default_quantization
from compressors.export.folder import input_names
from compressors.export.onnx import write_onnx
from compressors.network import EncoderNetwork
from compressors.options.scoring import divergences
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.isa import this_cpu
from profilers.protocol import Session
from profilers.quality.encode import EncodedTexts
from profilers.quality.encode import TextEncoder
from profilers.quality.evaluate import run_all
from profilers.quality.examples import read_examples
from profilers.quality.paired import mean_estimate
from profilers.registry import get_profiler
from profilers.table import race_many
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Estimate
from profilers.types import Workload

TASK = "sequence-classification"
CALIBRATION_TEXTS, RANGE_TEXTS = 512, 24
DENSE = "dense, fp32"
CONTROL = "the same file again"
ANYWHERE = DeviceProfile(name="onnxruntime", profiler="onnxruntime")
RANK_SHARES = (1.2, 1.0, 0.75, 0.5, 0.25)


def plans(anatomy: Anatomy, device: str) -> Iterator[tuple[str, Recipe]]:
    """Yield a recipe of the uncompressed shape for each method, the dense one first."""
    yield DENSE, _uniform(anatomy, device)
    for name, zeros in (
        ("50 % zeros, magnitude", {"sparsity": 0.5, "mask": "magnitude"}),
        ("50 % zeros, Wanda", {"sparsity": 0.5, "mask": "wanda"}),
        ("50 % zeros, SparseGPT", {"sparsity": 0.5, "mask": "sparsegpt"}),
        ("80 % zeros, SparseGPT", {"sparsity": 0.8, "mask": "sparsegpt"}),
        ("2:4 zeros, SparseGPT", {"sparsity": 0.5, "mask": "sparsegpt", "pattern": "2:4"}),
    ):
        yield name, _uniform(anatomy, device, **zeros)
    for share in RANK_SHARES:
        yield f"low rank, {share:.0%} of break-even", _low_rank(anatomy, device, share)
    yield "4-bit weights", _uniform(anatomy, device, bits=4)
    yield "8-bit weights", _quantised(anatomy, device, QuantizationRecipe(scheme="weight_only"))
    int8 = default_quantization(device, saturating=this_cpu().saturating_int8)
    if device == "onnxruntime":
        yield "int8, dynamic", _quantised(anatomy, device, int8.model_copy(update={"scheme": "dynamic"}))
    yield "int8, static", _quantised(anatomy, device, int8.model_copy(update={"scheme": "static"}))
    yield from _depth(anatomy, device)


def _uniform(anatomy: Anatomy, device: str, **settings: object) -> Recipe:
    layer = LayerRecipe.model_validate({"attention": settings, "feed_forward": settings})
    return _in_graph((layer,) * anatomy.layers, device)


def _low_rank(anatomy: Anatomy, device: str, share: float) -> Recipe:
    hidden, layers = anatomy.hidden_size, []
    for heads, width in zip(anatomy.heads, anatomy.intermediate_size, strict=True):
        inner = heads * anatomy.head_size
        ranks = [int(share * rows * hidden / (rows + hidden)) for rows in (inner, width)]
        layers.append(
            LayerRecipe(attention=AttentionRecipe(rank=ranks[0]), feed_forward=FeedForwardRecipe(rank=ranks[1]))
        )
    return _in_graph(tuple(layers), device)


def _quantised(anatomy: Anatomy, device: str, quantization: QuantizationRecipe) -> Recipe:
    return _uniform(anatomy, device, bits=8).model_copy(update={"quantization": quantization})


def _depth(anatomy: Anatomy, device: str) -> Iterator[tuple[str, Recipe]]:
    """One layer less, in three ways, in the middle."""
    first, second = anatomy.layers // 2 - 1, anatomy.layers // 2
    dense = [LayerRecipe()] * anatomy.layers
    for name, changes in (
        (
            f"layer {second} merged into {first} (LaCo)",
            {first: LayerRecipe(merged=1), second: LayerRecipe(removed=True)},
        ),
        (f"layer {second} dropped", {second: LayerRecipe(removed=True)}),
        (f"layer {first} dropped", {first: LayerRecipe(removed=True)}),
    ):
        yield name, _in_graph(tuple(changes.get(index, layer) for index, layer in enumerate(dense)), device)


def _in_graph(layers: tuple[LayerRecipe, ...], device: str) -> Recipe:
    bits = {branch.bits for layer in layers for branch in (layer.attention, layer.feed_forward)}
    return Recipe(layers=layers, graph=default_graph(device, bits))


@dataclass
class Bench:
    """What the files are made of; the calibration is only made where a file is missing."""

    model: Path
    texts: EncodedTexts
    folder: Path
    network: EncoderNetwork
    _calibration: Calibration | None = None

    @property
    def calibration(self) -> Calibration:
        """Statistics of the dense model's layers."""
        if self._calibration is None:
            order = sorted(range(len(self.texts)), key=lambda i: len(self.texts.input_ids[i]))
            names = input_names(self.network)
            feeds = [self.texts.batch(order[start : start + 32]) for start in range(0, len(order), 32)]
            batches = [{name: torch.from_numpy(batch[name]) for name in names} for batch in feeds]
            self._calibration = calibrate(self.network, batches)
        return self._calibration

    def artifact(self, recipe: Recipe) -> Artifact:
        """Build a file unless it is there."""
        path = self.folder / f"{recipe.digest}.onnx"
        if not path.exists():
            fresh = path.with_suffix(".part")
            feeds = [self.texts.batch([index], 128) for index in range(RANGE_TEXTS)]
            write_onnx(apply_recipe(self.network, self.calibration, recipe), recipe, fresh, feeds=feeds)
            fresh.rename(path)
        return Artifact(path=path)


def compare(
    bench: Bench, device: DeviceProfile, workload: Workload, held: EncodedTexts, seconds: float
) -> list[dict[str, str]]:
    """Build, run and time every method on one device; returns the lines of the table."""
    recipes = dict(plans(describe(bench.network), device.profiler))
    artifacts = {name: bench.artifact(recipe) for name, recipe in recipes.items()}
    feeds = real_tokens(held, workload)
    with get_profiler("onnxruntime").open(ANYWHERE, workload, feeds=feeds) as session:
        found = {name: outputs(session, artifact, held, workload) for name, artifact in artifacts.items()}
    effort = Effort(half_width=0.015, seconds=seconds, min_blocks=12, control_every=2, retreats=1)
    artifacts[CONTROL], found[CONTROL] = artifacts[DENSE], found[DENSE]
    with get_profiler(device.profiler).open(device, workload, feeds=feeds) as session:
        rivals = {name: artifact for name, artifact in artifacts.items() if name != DENSE}
        ratios = race_many(session, session.load(artifacts[DENSE]), rivals, effort)
    ratios[DENSE] = Estimate(value=1.0, low=1.0, high=1.0)
    names = [DENSE, CONTROL, *(name for name in recipes if name != DENSE)]
    return [_line(name, ratios[name], artifacts[name].path, found[DENSE], found[name]) for name in names]


def outputs(session: Session, artifact: Artifact, held: EncodedTexts, workload: Workload) -> torch.Tensor:
    """Return the file's outputs for all texts, float32 ``[texts, labels]``; they are kept beside the file."""
    kept = artifact.path.with_suffix(f".{len(held)}.npy")
    if not kept.exists():
        handle = session.load(artifact)
        np.save(kept, run_all(handle, held, TASK, workload, padded=False))
        session.unload(handle)
    return torch.from_numpy(np.load(kept))


def _line(name: str, ratio: Estimate, path: Path, dense: torch.Tensor, found: torch.Tensor) -> dict[str, str]:
    kl = mean_estimate(divergences(dense, found, classifier=True).numpy(), lowest=0.0, highest=np.inf)
    agreement = float((dense.argmax(-1) == found.argmax(-1)).double().mean())
    return {
        "method": name,
        "x dense": f"{1 / ratio.value:.2f}",
        "95 %": f"{1 / ratio.high:.2f} - {1 / ratio.low:.2f}",
        "KL": f"{kl.value:.4f}",
        "95 % of KL": f"{kl.low:.4f} - {kl.high:.4f}",
        "same answers": f"{agreement:.1%}",
        "MB": f"{path.stat().st_size / 1e6:.1f}",
        "compressed": f"{_compressed(path) / 1e6:.1f}",
    }


def _compressed(path: Path) -> int:
    kept = path.with_suffix(".compressed")
    if not kept.exists():
        kept.write_text(str(len(zlib.compress(path.read_bytes(), 1))))
    return int(kept.read_text())


def main() -> None:
    """Parse the arguments and print one table a device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text: where divergence is taken")
    parser.add_argument("--calibration", type=Path, required=True, help="JSONL with text")
    parser.add_argument(
        "--devices", nargs="+", choices=["onnxruntime", "openvino"], default=["onnxruntime", "openvino"]
    )
    parser.add_argument("--texts", type=int, default=300, help="texts of --data that are used")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=2.5, help="time limit for each model")
    parser.add_argument("--realtime", action="store_true", help="ask for real-time priority while timing")
    parser.add_argument("--folder", type=Path, help="where built files are kept; default: nowhere")
    arguments = parser.parse_args()
    workload = Workload(batch=arguments.batch, sequence_length=arguments.sequence)
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        encoder = TextEncoder(arguments.model, workload.sequence_length)
        texts, held = (
            encoder.encode(examples.select(np.arange(min(count, len(examples)))))
            for examples, count in (
                (read_examples(arguments.calibration), CALIBRATION_TEXTS),
                (read_examples(arguments.data), arguments.texts),
            )
        )
        bench = Bench(arguments.model, texts, folder, load_network(arguments.model, TASK))
        options = {"realtime_priority": 20} if arguments.realtime else {}
        for device in arguments.devices:
            profile = DeviceProfile(name=device, profiler=device, options=options)
            rows = compare(bench, profile, workload, held, arguments.seconds)
            print(f"\n{device}, {workload.batch} x {workload.sequence_length}, {workload.threads} thread")
            print_table(rows)


if __name__ == "__main__":
    main()
