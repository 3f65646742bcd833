"""Files of different origin side by side: accuracy on held-out labels, and latency in the same interleaved blocks."""

import os
from collections.abc import Mapping
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.hand_recipe import FP32
from benchmarks.hand_recipe import INT8
from benchmarks.latency_table import real_tokens
from benchmarks.tables import print_table
from compressors.export.baselines import BaselineArtifact
from compressors.export.baselines import build_baseline
from compressors.export.baselines import quantize_openvino
from infra.errors import ParetuneError
from paretune.client import Client
from paretune.types import Job
from profilers.isa import this_cpu
from profilers.measure import measure
from profilers.protocol import Feeds
from profilers.quality.encode import EncodedTexts
from profilers.quality.encode import TextEncoder
from profilers.quality.evaluate import Task
from profilers.quality.evaluate import compare
from profilers.quality.evaluate import run_all
from profilers.quality.examples import Examples
from profilers.registry import get_profiler
from profilers.results import MeasuredCandidate
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Estimate
from profilers.types import Quality
from profilers.types import Workload

TASK: Task = "sequence-classification"
WORKLOAD = Workload(batch=1, sequence_length=128, threads=1)
PROFILERS = {"local-cpu": "onnxruntime", "local-openvino": "openvino"}
"""Runtime of each device that every service has."""
REFERENCE, ONE_LINER = "fp32, ONNX Runtime", "int8 one-liner, ONNX Runtime"
PLAIN_OPENVINO = "fp32, OpenVINO"
_BASELINES = (
    ("fp32", "onnxruntime", REFERENCE),
    ("int8_one_liner", "onnxruntime", ONE_LINER),
    ("int8_static", "onnxruntime", "static int8, ONNX Runtime"),
    ("fp32", "openvino", PLAIN_OPENVINO),
    ("openvino_bf16", "openvino", "bf16 hint, OpenVINO"),
    ("openvino_int8", "openvino", "NNCF int8, OpenVINO"),
)
ONE = Estimate(value=1.0, low=1.0, high=1.0)


@dataclass(frozen=True)
class Contender:
    """One file and the runtime that runs it.

    Attributes:
        name: As in the table.
        profiler: The runtime.
        artifact: The file.
        speedup: What the service reported against the fp32 export, if it did.
        drop: The same for the loss of accuracy, a fraction.
        expected_drop: The loss that the service expects of more examples.
    """

    name: str
    profiler: str
    artifact: Artifact
    speedup: Estimate | None = None
    drop: Estimate | None = None
    expected_drop: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """What was found out about a contender outside of the service."""

    contender: Contender
    quality: Quality
    ratio: Estimate
    status: str


def baselines(model: Path, scratch: Path, calibration: EncodedTexts, task: Task = TASK) -> list[Contender]:
    """Build what a user could have had in one line, for both runtimes; the first two are the opponents."""
    feeds, cpu = _feeds(calibration), this_cpu()
    found = []
    for name, profiler, title in _BASELINES:
        built = build_baseline(name, model, task, scratch, feeds, saturating=cpu.saturating_int8, bf16=cpu.fast_bf16)
        found.append(_contender(title, profiler, built))
    return found


def _feeds(calibration: EncodedTexts) -> list[Feeds]:
    return [calibration.batch([index], WORKLOAD.sequence_length) for index in range(len(calibration))]


def _contender(title: str, profiler: str, built: BaselineArtifact) -> Contender:
    """Name the hint that the file is run with, where its title does not."""
    if built.precision == "bf16" and "bf16" not in title:
        title = title.replace(", OpenVINO", ", bf16 hint, OpenVINO")
    return Contender(title, profiler, Artifact(path=built.path, format=built.format, precision=built.precision))


def downloaded(
    client: Client, job: Job, device: str, point: Mapping[str, Any], output: Path, mark: str = ""
) -> Contender:
    """Download a model of a job's front in the form that is fastest at the workload.

    Args:
        client: Of the service.
        job: The job.
        device: The device's name.
        point: The model, as in the front.
        output: Folder for all downloads.
        mark: What its name begins with.
    """
    folder = output / device / str(point["number"])
    client.download(job, "onnx", folder, trial=point["number"])
    static = folder / "model_static.onnx"
    artifact = Artifact(
        path=static if static.exists() else folder / "model.onnx", precision=point["recipe"]["precision"]
    )
    healed = ", healed" if point["healed"] else ""
    return Contender(
        f"Paretune, {device}, {mark}trial {point['number']}{healed}",
        PROFILERS[device],
        artifact,
        Estimate.model_validate(point["latency"]["speedup"]),
        Estimate.model_validate(point["quality"]["drop"]),
        point["quality"]["expected_drop"],
    )


def by_hand(folder: Path, scratch: Path, calibration: EncodedTexts) -> list[Contender]:
    """Return the files of ``benchmarks.hand_recipe``, and what NNCF makes of them."""
    rounded = quantize_openvino(folder / FP32, scratch / "hand_int8.xml", _feeds(calibration))
    hinted = replace(rounded, precision="bf16" if this_cpu().fast_bf16 else "f32")
    return [
        Contender("by hand, int8, ONNX Runtime", "onnxruntime", Artifact(path=folder / INT8)),
        Contender("by hand, fp32, OpenVINO", "openvino", Artifact(path=folder / FP32)),
        Contender("by hand, bf16 hint, OpenVINO", "openvino", Artifact(path=folder / FP32, precision="bf16")),
        _contender("by hand, NNCF int8, OpenVINO", "openvino", hinted),
    ]


def judge(
    contenders: Sequence[Contender], encoded: EncodedTexts, test: Examples, seconds: float, task: Task = TASK
) -> list[Verdict]:
    """Evaluate every contender on ``test`` and time all of them in the same blocks; the first is the reference.

    What a runtime refuses on this machine (bf16 without the instructions) is said and left out.
    """
    feeds = real_tokens(encoded, WORKLOAD)
    sessions = {
        name: get_profiler(name).open(DeviceProfile(name=name, profiler=name), WORKLOAD, feeds=feeds)
        for name in {contender.profiler for contender in contenders}
    }
    handles = {}
    for contender in contenders:
        try:
            handles[contender.name] = sessions[contender.profiler].load(contender.artifact)
        except ParetuneError as error:
            print(f"left out: {contender.name}: {error.message}")
    present = [contender for contender in contenders if contender.name in handles]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        answers = pool.map(lambda contender: _outputs(contender, encoded, feeds, task), present)
        outputs = {contender.name: answer for contender, answer in zip(present, answers, strict=True)}
    reference = contenders[0].name
    rivals = {name: handle for name, handle in handles.items() if name != reference}
    effort = Effort(half_width=0.01, seconds=seconds, total_seconds=seconds * len(rivals))
    timed: dict[str, MeasuredCandidate] = measure(sessions[contenders[0].profiler], handles[reference], rivals, effort)
    verdicts = []
    for contender in present:
        quality, _ = compare(
            outputs[contender.name], outputs[reference], test.labels, task, split="holdout", padded=True
        )
        found = timed.get(contender.name)
        ratio, status = (found.measurement.ratio, found.measurement.status) if found else (ONE, "reference")
        verdicts.append(Verdict(contender, quality, ratio, status))
    return verdicts


def _outputs(contender: Contender, encoded: EncodedTexts, feeds: Feeds, task: Task) -> npt.NDArray[np.float32]:
    """Run a contender on all texts, on any core."""
    device = DeviceProfile(name=contender.profiler, profiler=contender.profiler)
    with get_profiler(contender.profiler).open(device, WORKLOAD, feeds=feeds, pinned=False) as session:
        return run_all(session.load(contender.artifact), encoded, task, WORKLOAD, padded=True)


def print_comparison(verdicts: Sequence[Verdict]) -> None:
    """Print the table, the fastest first."""
    one_liner = next(found.ratio.value for found in verdicts if found.contender.name == ONE_LINER)
    rows = [
        {
            "model": found.contender.name,
            "x fp32 ORT": f"{1 / found.ratio.value:.2f}",
            "95 %": f"{1 / found.ratio.high:.2f} - {1 / found.ratio.low:.2f}",
            "x int8 one-liner": f"{one_liner / found.ratio.value:.2f}",
            "test accuracy": f"{100 * found.quality.value.value:.2f}",
            "drop": f"{100 * found.quality.drop.value:.2f}",
            "95 % of drop": f"{100 * found.quality.drop.low:.2f} - {100 * found.quality.drop.high:.2f}",
            "timing": found.status,
        }
        for found in sorted(verdicts, key=lambda found: found.ratio.value)
    ]
    print_table(rows)


def print_promises(verdicts: Sequence[Verdict]) -> None:
    """Print what the service reported beside what was found here, both against the fp32 export in the same runtime."""
    plain = {REFERENCE, PLAIN_OPENVINO}
    references = {found.contender.profiler: found.ratio.value for found in verdicts if found.contender.name in plain}
    rows = []
    for found in verdicts:
        speedup, drop = found.contender.speedup, found.contender.drop
        if speedup is None or drop is None:
            continue
        here = references[found.contender.profiler] / found.ratio.value
        overlap = found.quality.drop.low <= drop.high and drop.low <= found.quality.drop.high
        rows.append(
            {
                "model": found.contender.name,
                "reported x": f"{speedup.value:.2f}",
                "here x": f"{here:.2f}",
                "difference": f"{100 * (here / speedup.value - 1):+.1f} %",
                "reported drop": f"{100 * drop.value:.2f} ({100 * drop.low:.2f} - {100 * drop.high:.2f})",
                "expected drop": f"{100 * found.contender.expected_drop:.2f}",
                "drop on test": f"{100 * found.quality.drop.value:.2f}",
                "intervals meet": "yes" if overlap else "NO",
            }
        )
    if rows:
        print("\nwhat the service promised, and what a separate evaluation and timing found:")
        print_table(rows)


def encode(model: Path, examples: Examples) -> EncodedTexts:
    """Tokenise as the service does."""
    return TextEncoder(model, WORKLOAD.sequence_length).encode(examples)
