"""Can the latencies be believed? The measurement protocol against itself and against the usual way.

    python -m benchmarks.measurement --model model.onnx --slower slightly_slower.onnx

Three questions, each answered by repeating whole measurements:

1. *A/A*: the same model against itself: how often does the 95 % interval contain 1? Once as the same loaded handle
   (the control), once loaded a second time for each run, and in fresh processes, as the final numbers of a job are
   taken. Where a model's memory lies changes its speed by up to a few per cent for as long as it is loaded: no
   measurement inside one process sees that, which is why the final numbers come from several.
2. *Width against time*: how wide is the interval after how many seconds, for each effort?
3. *Ranking*: two models of which one is known to be slower by a few per cent: how often does each protocol name the
   right one? The usual way is 10 warm-up runs, then the mean of 20 runs, one model after the other.

Without ``--model`` a pair of matrix-product chains is built whose work differs by ``--difference``. ``--load N`` keeps
N processes computing beside the measurement.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import asdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from profilers.fresh import measure_in_fresh_processes
from profilers.measure import measure
from profilers.protocol import Handle
from profilers.protocol import Session
from profilers.protocol import Visit
from profilers.registry import get_profiler
from profilers.statistics import contains_one
from profilers.statistics import half_width
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Measurement
from profilers.types import Workload

PROCESSES = 3
USUAL_WARM_UP = 10
USUAL_REPEATS = 20
_HIDDEN = 384
_BUSY = "import numpy as np\na = np.ones((256, 256))\nwhile True: a = a @ a / 256"


@dataclass
class Row:
    """One line of a table: what was found over repeated measurements."""

    what: str
    runs: int
    contains_truth: float
    """Share of the believed (``ok``) runs whose interval contains 1 (A/A), or that rank correctly (ranking)."""
    wrong: float
    noisy: float
    half_width: float
    seconds: float


def main() -> None:
    """Run the benchmark and print its tables."""
    arguments = _parse()
    with ExitStack() as stack:
        model, slower = _models(arguments, stack)
        stack.enter_context(_load(arguments.load))
        device = DeviceProfile(name="benchmark", profiler=arguments.profiler, options=_options(arguments))
        workload = Workload(batch=arguments.batch, sequence_length=arguments.sequence_length)
        session = stack.enter_context(get_profiler(arguments.profiler).open(device, workload))
        first, other = (session.load(Artifact(path=path)) for path in (model, slower))
        rows = self_comparison(session, first, Artifact(path=model), arguments.runs, _efforts(arguments))
        rows += fresh_processes(device, workload, Artifact(path=model), arguments)
        rows += ranking(session, first, other, arguments.runs, _efforts(arguments)[0])
        _print(rows)
        if arguments.json:
            arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2), encoding="utf-8")


def self_comparison(session: Session, first: Handle, model: Artifact, runs: int, efforts: list[Effort]) -> list[Row]:
    """Measure a model against itself, ``runs`` times with each effort."""
    rows = []
    for effort in efforts:
        found = []
        for seed in range(runs):
            again = session.load(model)
            found.append(measure(session, first, {"again": again}, effort, seed)["again"].measurement)
            session.unload(again)
        name = f"+-{effort.half_width:.1%}"
        rows.append(_self_row(f"A/A, same handle, {name}", found, [m.control_ratio for m in found]))
        rows.append(_self_row(f"A/A, loaded twice, {name}", found, [m.ratio for m in found]))
    return rows


def fresh_processes(
    device: DeviceProfile, workload: Workload, model: Artifact, arguments: argparse.Namespace
) -> list[Row]:
    """Measure a model against itself in fresh processes, as a job does with its finalists."""
    found = []
    for seed in range(arguments.fresh):
        measured = measure_in_fresh_processes(
            device,
            workload,
            model,
            {"again": model},
            _efforts(arguments)[0],
            seed * PROCESSES,
            processes=PROCESSES,
            memory=False,
        )
        found.append(measured["again"].measurement)
    return [_self_row(f"A/A, {PROCESSES} fresh processes", found, [m.ratio for m in found])] if found else []


def _self_row(what: str, found: list[Measurement], ratios: list) -> Row:
    believed = [ratio for m, ratio in zip(found, ratios, strict=True) if m.status == "ok"]
    inside = [contains_one(ratio) for ratio in believed]
    return Row(
        what,
        runs=len(found),
        contains_truth=float(np.mean(inside)) if inside else math.nan,
        wrong=1 - float(np.mean(inside)) if inside else math.nan,
        noisy=1 - len(believed) / len(found),
        half_width=statistics.median(half_width(ratio) for ratio in ratios),
        seconds=statistics.median(m.seconds for m in found),
    )


def ranking(session: Session, faster: Handle, slower: Handle, runs: int, effort: Effort) -> list[Row]:
    """Rank two models with both protocols, alternately; the truth comes from one long measurement at the end."""
    ours, usual, usual_seconds = [], [], []
    for seed in range(runs):
        ours.append(measure(session, faster, {"slower": slower}, effort, seed)["slower"].measurement)
        started = time.perf_counter()
        usual.append(usual_mean(session, slower) / usual_mean(session, faster))
        usual_seconds.append(time.perf_counter() - started)
    long = Effort(half_width=effort.half_width / 4, seconds=effort.seconds * 3)
    truth = measure(session, faster, {"slower": slower}, long, runs)["slower"].measurement
    print(f"Long measurement of the pair: {truth.ratio.value:.4f} [{truth.ratio.low:.4f}, {truth.ratio.high:.4f}]")
    sign = math.log(truth.ratio.value)
    decided = [m for m in ours if m.status == "ok" and not contains_one(m.ratio)]
    right = [math.log(m.ratio.value) * sign > 0 for m in decided]
    usual_right = [math.log(ratio) * sign > 0 for ratio in usual]
    return [
        Row(
            "ranking, this protocol",
            runs,
            contains_truth=sum(right) / runs,
            wrong=(len(right) - sum(right)) / runs,
            noisy=1 - len(decided) / runs,
            half_width=statistics.median(half_width(m.ratio) for m in ours),
            seconds=statistics.median(m.seconds for m in ours),
        ),
        Row(
            f"ranking, {USUAL_WARM_UP} warm-up + mean of {USUAL_REPEATS}",
            runs,
            contains_truth=float(np.mean(usual_right)),
            wrong=1 - float(np.mean(usual_right)),
            noisy=0.0,
            half_width=1.96 * float(np.std(np.log(usual))),
            seconds=statistics.median(usual_seconds),
        ),
    ]


def usual_mean(session: Session, handle: Handle) -> float:
    """Return what most tools report: the mean of 20 runs after 10 warm-up runs, in nanoseconds."""
    session.sample([Visit(handle, USUAL_WARM_UP)])
    return float(session.sample([Visit(handle, USUAL_REPEATS)]).elapsed_ns[0]) / USUAL_REPEATS


def _print(rows: list[Row]) -> None:
    print(f"{'':44s} {'runs':>5s} {'right':>7s} {'wrong':>7s} {'no verdict':>10s} {'+-':>7s} {'seconds':>8s}")
    for row in rows:
        print(
            f"{row.what:44s} {row.runs:5d} {row.contains_truth:7.1%} {row.wrong:7.1%} {row.noisy:10.1%}"
            f" {row.half_width:7.2%} {row.seconds:8.2f}"
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="ONNX model")
    parser.add_argument("--slower", type=Path, help="ONNX model with the same inputs, slower by a few per cent")
    parser.add_argument("--difference", type=float, default=0.03, help="without --model: how much more work")
    parser.add_argument("--profiler", default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--fresh", type=int, default=20, help="A/A runs in fresh processes")
    parser.add_argument("--seconds", type=float, default=20.0, help="time limit of one measurement")
    parser.add_argument("--precision", type=float, nargs="+", default=[0.01, 0.03], help="target half-widths")
    parser.add_argument("--load", type=int, default=0, help="busy processes beside the measurement")
    parser.add_argument("--realtime", type=int, help="real-time priority of the measuring thread, 1 to 99")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    if (arguments.model is None) != (arguments.slower is None):
        parser.error("give both --model and --slower, or neither")
    return arguments


def _options(arguments: argparse.Namespace) -> dict[str, int]:
    return {} if arguments.realtime is None else {"realtime_priority": arguments.realtime}


def _efforts(arguments: argparse.Namespace) -> list[Effort]:
    return [Effort(half_width=width, seconds=arguments.seconds, retreats=1) for width in sorted(arguments.precision)]


def _models(arguments: argparse.Namespace, stack: ExitStack) -> tuple[Path, Path]:
    if arguments.model is not None:
        return arguments.model, arguments.slower
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="paretune-benchmark-")))
    width = 768
    wider = round(width * (1 + arguments.difference))
    return write_chain(folder / "model.onnx", width), write_chain(folder / "slower.onnx", wider)


def write_chain(path: Path, width: int, blocks: int = 6) -> Path:
    """Write ``blocks`` feed-forward blocks 384 -> ``width`` -> 384 with residuals: work proportional to ``width``."""
    import onnx
    from onnx import TensorProto
    from onnx import helper
    from onnx import numpy_helper

    rng = np.random.default_rng(0)
    nodes, weights, current = [], [], "x"
    for block in range(blocks):
        for name, shape in ((f"up{block}", (_HIDDEN, width)), (f"down{block}", (width, _HIDDEN))):
            values = (rng.standard_normal(shape) / math.sqrt(shape[0])).astype(np.float32)
            weights.append(numpy_helper.from_array(values, name))
        nodes += [
            helper.make_node("MatMul", [current, f"up{block}"], [f"wide{block}"]),
            helper.make_node("Relu", [f"wide{block}"], [f"active{block}"]),
            helper.make_node("MatMul", [f"active{block}", f"down{block}"], [f"narrow{block}"]),
            helper.make_node("Add", [current, f"narrow{block}"], [f"x{block}"]),
        ]
        current = f"x{block}"
    shape = ["batch", "sequence", _HIDDEN]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(current, TensorProto.FLOAT, shape)],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@contextmanager
def _load(processes: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    main()
