"""The main claim: submit a model, wait, and compare what comes back with what a user would otherwise have.

    python -m benchmarks.deployed_speed --model DIR --data DIR [--budget 10m] [--recover 20m] [--output DIR]

``--data`` is a folder with ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl`` (``text``, ``label``). A job runs on a
service of its own, for each device: evaluation on dev, calibration on the texts of train. Then, outside of the
service, the best models and the baselines of both runtimes are evaluated on test, padded to the workload as they are
deployed, and timed in the same interleaved blocks.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.tables import print_table
from compressors.export.baselines import build_baseline
from examples.plot_front import plot_front
from examples.service import running_service
from paretune.cli.durations import parse_duration
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
from profilers.types import Workload

TASK = "sequence-classification"
WORKLOAD = Workload(batch=1, sequence_length=128, threads=1)
PROFILERS = {"local-cpu": "onnxruntime", "local-openvino": "openvino"}
CALIBRATION_TEXTS = 300


@dataclass(frozen=True)
class Contender:
    """One file and the runtime that runs it."""

    name: str
    profiler: str
    artifact: Artifact


def main() -> None:
    """Run the jobs, then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--devices", nargs="+", default=list(PROFILERS), choices=list(PROFILERS))
    parser.add_argument("--budget", type=parse_duration, default=600.0, help="of each job (default: 10m)")
    parser.add_argument("--recover", type=parse_duration, default=None, help="recovery training in each job")
    parser.add_argument("--strategy", default="guided")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with running_service() as client:
        contenders = [_run_job(client, device, arguments) for device in arguments.devices]
    with tempfile.TemporaryDirectory() as scratch:
        test = read_examples(arguments.data / "test.jsonl", text_column="text", label_column="label")
        encoder = TextEncoder(arguments.model, WORKLOAD.sequence_length)
        baselines = _baselines(arguments, Path(scratch), encoder)
        _compare([*baselines, *(entry for entry in contenders if entry)], encoder.encode(test), test)


def _run_job(client: Any, device: str, arguments: argparse.Namespace) -> Contender | None:
    """Run one job, download its best model, print where the time went."""
    fields: dict[str, Any] = {"strategy": arguments.strategy}
    if arguments.recover is not None:
        fields["recover"] = {"seconds": arguments.recover}
        fields["train_id"] = client.upload_dataset(arguments.data / "train.jsonl").id
    started = time.monotonic()
    job = client.submit(
        client.upload_model(arguments.model),
        client.upload_dataset(arguments.data / "dev.jsonl"),
        calibration=client.upload_dataset(arguments.data / "train.jsonl"),
        task=TASK,
        device=device,
        max_drop=arguments.max_drop,
        budget_seconds=arguments.budget + (arguments.recover or 0.0),
        **fields,
    )
    client.wait(job)
    wall = time.monotonic() - started
    front, report, trials = client.front(job), client.report(job), list(client.trials(job))
    (arguments.output / f"{device}.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    plot_front(front, trials, arguments.output / f"{device}.png", f"{arguments.model.name} on {device}")
    print(f"\n{device}: {wall:.0f} s from submit to the end; {len(trials)} trials; {front['message']}")
    print("wall time by phase (s):", {k: v for k, v in report["summary"]["wall_seconds"].items() if k != "by_step"})
    best = front["best"]
    if best is None or best["kind"] == "baseline":
        return None
    folder = arguments.output / device
    client.download(job, "onnx", folder, trial=best["number"])
    precision = best["recipe"]["precision"]
    path = folder / ("model_static.onnx" if (folder / "model_static.onnx").exists() else "model.onnx")
    print(
        f"best: {best['name']}: reported {best['latency']['speedup']['value']:.2f} x, "
        f"drop {100 * best['quality']['drop']['value']:.2f} points on held-out dev examples"
    )
    return Contender(f"Paretune, {device}: {best['name']}", PROFILERS[device], Artifact(path=path, precision=precision))


def _baselines(arguments: argparse.Namespace, scratch: Path, encoder: TextEncoder) -> list[Contender]:
    train = read_examples(arguments.data / "train.jsonl", text_column="text")
    texts = encoder.encode(train.select(np.arange(CALIBRATION_TEXTS, dtype=np.int64)))
    feeds = [texts.batch([index], WORKLOAD.sequence_length) for index in range(len(texts))]
    found = []
    for name, profiler, title in (
        ("fp32", "onnxruntime", "fp32, ONNX Runtime"),
        ("int8_one_liner", "onnxruntime", "int8 one-liner, ONNX Runtime"),
        ("fp32", "openvino", "fp32, OpenVINO"),
        ("openvino_bf16", "openvino", "bf16 hint, OpenVINO"),
        ("openvino_int8", "openvino", "NNCF int8, OpenVINO"),
    ):
        built = build_baseline(name, arguments.model, TASK, scratch, calibration_feeds=feeds)
        precision = "bf16" if name == "openvino_bf16" else "f32"
        format_ = "onnx" if built.format == "onnx" else "openvino_ir"
        found.append(Contender(title, profiler, Artifact(path=built.path, format=format_, precision=precision)))
    return found


def _compare(contenders: list[Contender], encoded: EncodedTexts, test: Examples) -> None:
    """Evaluate on the test set and time everything side by side; the first contender is the reference."""
    sessions = {
        name: get_profiler(name).open(DeviceProfile(name=name, profiler=name), WORKLOAD, feeds=_feeds(encoded))
        for name in {contender.profiler for contender in contenders}
    }
    handles = [sessions[contender.profiler].load(contender.artifact) for contender in contenders]
    outputs = [run_all(handle, encoded, TASK, WORKLOAD, padded=True) for handle in handles]
    names = [contender.name for contender in contenders]
    session = sessions[contenders[0].profiler]
    effort = Effort(half_width=0.01, seconds=30.0, total_seconds=240.0)
    timed = measure(session, handles[0], dict(zip(names[1:], handles[1:], strict=True)), effort)
    one_liner = timed[names[1]].measurement.ratio.value
    rows = []
    for name, output in zip(names, outputs, strict=True):
        quality, _ = compare(output, outputs[0], test.labels, TASK, split="holdout", padded=True)
        found = timed.get(name)
        ratio = found.measurement.ratio if found else None
        rows.append(
            {
                "model": name,
                "x fp32 ORT": f"{1 / ratio.value:.2f}" if ratio else "1.00",
                "95 %": f"{1 / ratio.high:.2f} - {1 / ratio.low:.2f}" if ratio else "",
                "x int8 one-liner": f"{one_liner / (ratio.value if ratio else 1.0):.2f}",
                "test accuracy": f"{100 * quality.value.value:.2f}",
                "drop": f"{100 * quality.drop.value:.2f}",
                "95 % of drop": f"{100 * quality.drop.low:.2f} - {100 * quality.drop.high:.2f}",
                "timing": found.measurement.status if found else "",
            }
        )
    print_table(rows)


def _feeds(encoded: EncodedTexts) -> dict[str, NDArray[np.int64]]:
    """Real tokens without padding."""
    ids = np.resize(np.concatenate(encoded.input_ids), (WORKLOAD.batch, WORKLOAD.sequence_length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


if __name__ == "__main__":
    main()
