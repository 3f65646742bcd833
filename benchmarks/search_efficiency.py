"""How many trials, and how much time, each strategy needs for the same front.

    python -m benchmarks.search_efficiency --model DIR --data FILE --calibration FILE [--seeds 5] [--trials 200]

Every strategy is the one that jobs use, asked for one proposal at a time. Every candidate is really built as an ONNX
file and run in the device's runtime on a fixed sample of texts; a recipe that two strategies or seeds propose is built
once. Latency is what the device's measured table predicts, the same for all, unless ``--measure`` is given; then each
candidate is timed. ``--confirm`` times the models of every strategy's final front, of the first seed, in one race, and
says what these fronts are worth with the measured times. Quality is the divergence from the dense model. A front is
worth the area that it dominates between the dense model's speed and ``--worst`` nats, over the logarithm of the
speed-up: 1.0 is an e-fold speed-up for nothing.

Time is the sum of what asking, building and evaluating took, whether the candidate was new or known from another run.
``guided`` begins with the time of the latency table, the option database and of exploring; presets count as trials.
``--table`` and ``--cache`` keep what was measured and evaluated, so that a run that was cut off goes on.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from benchmarks.confirmed_fronts import confirm
from benchmarks.contest import STRATEGIES
from benchmarks.contest import Contest
from benchmarks.contest import Run
from benchmarks.latency_table import Bench
from benchmarks.preparation import Preparation
from benchmarks.preparation import spread
from benchmarks.tables import print_table
from benchmarks.trial_cost import TrialBench
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import read_examples
from search.options import BranchTable
from search.options import OptionDatabase
from search.prepared import Prepared
from workers.stages.explore import DIVERGENCES

COUNTS = (10, 20, 50, 100, 200)
"""Trials after which fronts are compared."""
MINUTES = (2, 5, 10, 20)
"""The same for time."""
RANGE_TEXTS = 32
RIVAL = "TPE"
"""What ``guided`` has to reach."""

Runs = Mapping[str, Sequence[Run]]


def load_table(bench: Bench, file: Path | None) -> tuple[BranchTable, float]:
    """Return the latency table and the seconds that it took, from a file if it is there."""
    if file is not None and file.exists():
        stored = json.loads(file.read_text(encoding="utf-8"))
        return BranchTable.model_validate(stored["table"]), stored["seconds"]
    table, _, seconds = bench.table()
    if file is not None:
        file.write_text(json.dumps({"table": table.model_dump(), "seconds": seconds}), encoding="utf-8")
    return table, seconds


def compete(arguments: argparse.Namespace, bench: Bench) -> tuple[Runs, TrialBench]:
    """Run every strategy with every seed; returns the runs and what candidates were tried on."""
    table, table_seconds = load_table(bench, arguments.table)
    encoder = TextEncoder(arguments.model, arguments.sequence)
    started = time.monotonic()
    preparation = Preparation(bench, encoder.encode(read_examples(arguments.calibration)), table)
    calibration_seconds = time.monotonic() - started
    started = time.monotonic()
    options = preparation.options()
    options_seconds = time.monotonic() - started
    print(
        f"calibration {calibration_seconds:.0f} s, latency table {table_seconds:.0f} s, "
        f"option database {options_seconds:.0f} s",
        flush=True,
    )
    texts = spread(encoder.encode(read_examples(arguments.data)), arguments.examples)
    cache = arguments.cache or bench.folder / "outcomes.jsonl"
    ranges = spread(preparation.texts, RANGE_TEXTS)
    trials = TrialBench(
        bench, preparation.calibration, preparation.model, texts, ranges, cache, measure=arguments.measure
    )
    prepared = Prepared(
        anatomy=preparation.space.anatomy,
        capabilities=bench.profiler.describe(),
        graph_defaults=bench.defaults,
        options=options,
        latency_table=table,
    )
    contest = Contest(prepared, trials, 60 * arguments.minutes)
    runs: dict[str, list[Run]] = {name: [] for name in arguments.strategies}
    for seed in range(arguments.seeds):
        for name in arguments.strategies:
            runs[name].append(
                _run(arguments, contest, preparation, options, table_seconds + options_seconds, name, seed)
            )
            print(f"  {name}, seed {seed}: {len(runs[name][-1].points)} trials", flush=True)
    print(f"{trials.built} different candidates were built and evaluated in this run")
    return runs, trials


def _run(
    arguments: argparse.Namespace,
    contest: Contest,
    preparation: Preparation,
    options: OptionDatabase,
    prepared_seconds: float,
    name: str,
    seed: int,
) -> Run:
    if not name.startswith("guided"):
        return contest.run(name, seed, arguments.trials)
    if name != "guided":
        return contest.run(name, seed, arguments.guided_trials, started=prepared_seconds)
    started = time.monotonic()
    exploration = preparation.exploration(options, seed)
    found = list(exploration.run(exploration.ratios(DIVERGENCES), arguments.explore))
    explored = [entry for rank in zip(*found, strict=False) for entry in rank]
    seconds = prepared_seconds + time.monotonic() - started
    return contest.run(name, seed, arguments.guided_trials, started=seconds, explored=explored)


def at_count(run: Run, count: int, worst: float) -> float:
    """Return what the front of the first ``count`` trials is worth; NaN if there were fewer."""
    return run.volumes(worst)[count - 1] if len(run.points) >= count else float("nan")


def at_time(run: Run, seconds: float, worst: float) -> float:
    """Return what the front is worth at a time; 0 before the first trial, the last front after the run's end."""
    done = int(np.searchsorted(run.seconds, seconds, side="right"))
    return run.volumes(worst)[done - 1] if done else 0.0


def trials_to_reach(run: Run, target: float, worst: float) -> float:
    """Return the number of trials after which the front is worth ``target``; infinite if never."""
    return next((count for count, value in enumerate(run.volumes(worst), 1) if value >= target), float("inf"))


def print_results(runs: Runs, worst: float) -> None:
    """Print the tables of one reference point."""
    print(f"\nhypervolume after so many trials, up to {worst:g} nats: mean over seeds (standard deviation)")
    print_table(
        [_line(name, [[at_count(run, n, worst) for run in runs[name]] for n in COUNTS], COUNTS) for name in runs]
    )
    print("\nhypervolume after so many minutes (a run that ended earlier keeps its last front)")
    rows = [[[at_time(run, 60 * m, worst) for run in runs[name]] for m in MINUTES] for name in runs]
    print_table([_line(name, row, MINUTES) for name, row in zip(runs, rows, strict=True)])
    if RIVAL not in runs:
        return
    target = float(np.mean([run.volumes(worst)[-1] for run in runs[RIVAL]]))
    longest = max(len(run.points) for run in runs[RIVAL])
    print(f"\ntrials until the front is worth what {RIVAL} has after {longest} on average ({target:.3f})")
    print_table([_reached(name, [trials_to_reach(run, target, worst) for run in runs[name]]) for name in runs])


def _line(name: str, columns: Sequence[Sequence[float]], heads: Sequence[int]) -> dict[str, str]:
    return {"strategy": name} | {str(head): _spread(values) for head, values in zip(heads, columns, strict=True)}


def _spread(values: Sequence[float]) -> str:
    known = [value for value in values if not np.isnan(value)]
    return f"{np.mean(known):.3f} ({np.std(known):.3f})" if len(known) == len(values) else "-"


def _reached(name: str, counts: Sequence[float]) -> dict[str, str]:
    def text(count: float) -> str:
        return f"{count:.0f}" if np.isfinite(count) else "never"

    ordered = sorted(counts)
    return {
        "strategy": name,
        "best seed": text(ordered[0]),
        "median": text(ordered[len(ordered) // 2]),
        "worst seed": text(ordered[-1]),
    }


def draw(runs: Runs, worst: float, file: Path) -> None:
    """Draw the fronts' worth against trials and against time: the mean, and the range over seeds."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.4), sharey=True, layout="constrained")
    for number, (name, found) in enumerate(runs.items()):
        color = f"C{number}"
        length = min(len(run.points) for run in found)
        values = np.array([run.volumes(worst)[:length] for run in found])
        _band(left, np.arange(1, length + 1), values, name, color)
        last = max(run.seconds[-1] for run in found)
        times = np.geomspace(1.0, last, 200)
        _band(right, times / 60, np.array([[at_time(run, t, worst) for t in times] for run in found]), name, color)
    left.set(xscale="log", xlabel="trials", ylabel=f"dominated area, up to {worst:g} nats")
    right.set(xscale="log", xlabel="minutes")
    left.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    pyplot.close(figure)


def _band(axes: object, x: np.ndarray, values: np.ndarray, name: str, color: str) -> None:
    axes.plot(x, values.mean(0), label=name, color=color, linewidth=1.8)  # type: ignore[attr-defined]
    axes.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.15, linewidth=0)  # type: ignore[attr-defined]


def main() -> None:
    """Parse the arguments, run, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="JSONL with text: what candidates are judged on")
    parser.add_argument("--calibration", type=Path, required=True, help="JSONL with other texts")
    parser.add_argument("--device", choices=["onnxruntime", "openvino"], default="onnxruntime")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--sequence", type=int, default=128)
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trials", type=int, default=200, help="of every strategy but guided")
    parser.add_argument("--guided-trials", type=int, default=40)
    parser.add_argument("--examples", type=int, default=256, help="texts that every candidate is judged on")
    parser.add_argument("--explore", type=float, default=72.0, help="seconds, as in a ten-minute job without a repair")
    parser.add_argument("--minutes", type=float, default=60.0, help="time limit of each run")
    parser.add_argument("--worst", type=float, nargs="+", default=[0.1], help="divergences at which nothing counts")
    parser.add_argument("--measure", action="store_true", help="time every candidate; needs a quiet machine")
    parser.add_argument("--confirm", action="store_true", help="time the final fronts; needs a quiet machine")
    parser.add_argument("--realtime", action="store_true", help="ask for real-time priority while timing")
    parser.add_argument("--table", type=Path, help="latency table: read if it is there, else written")
    parser.add_argument("--table-only", action="store_true", help="measure the table and stop")
    parser.add_argument("--cache", type=Path, help="outcomes: read and added to")
    parser.add_argument("--picture", type=Path, help="PNG to write")
    parser.add_argument("--output", type=Path, help="JSON to write: every trial of every run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(arguments, Path(scratch))
        if arguments.table_only:
            print(f"latency table: {load_table(bench, arguments.table)[1]:.0f} s")
            return
        runs, trials = compete(arguments, bench)
        print(f"\nlatency: {'measured' if arguments.measure else 'predicted by the measured table, not timed'}")
        for worst in arguments.worst:
            print_results(runs, worst)
        if arguments.output is not None:
            everything = [asdict(run) for found in runs.values() for run in found]
            arguments.output.write_text(json.dumps(everything), encoding="utf-8")
        if arguments.picture is not None:
            draw(runs, arguments.worst[0], arguments.picture)
        if arguments.confirm:
            confirm({name: found[0] for name, found in runs.items()}, bench, trials, arguments.worst[0])


if __name__ == "__main__":
    main()
