"""What a step of a recovery training takes inside a runner, by how its threads wait for each other.

    python -m benchmarks.training_step --model DIR --train FILE [--turns 3]

``as in jobs`` is a runner as the service starts it; in ``sleeping`` its threads sleep as soon as they have to wait
(``OMP_WAIT_POLICY=PASSIVE``). Both take turns, each in a new process with all its layers; a turn is the median of its
steps. The student has ``--heads`` heads and ``--width`` feed-forward channels in every layer. Needs a quiet machine.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

from benchmarks.tables import print_table
from infra.json_types import JsonObject
from infra.settings import Settings
from infra.settings import load_settings
from workers.runner.launch import runner_environment
from workers.runner.operation import OperationContext
from workers.runner.operation import Role
from workers.runner.process import RunnerProcess

OPERATIONS = {"train": "benchmarks.training_step:train"}
WAITING: dict[str, dict[str, str]] = {"as in jobs": {}, "sleeping": {"OMP_WAIT_POLICY": "PASSIVE"}}
TEXTS = 640
UNTIMED_STEPS = 5


def train(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Train a fresh student in each arithmetic; return the median milliseconds of a step."""
    from benchmarks.recovery.bench import load
    from compressors.recovery.config import RecoveryConfig
    from compressors.recovery.objective import state_layers_for
    from compressors.recovery.precision import candidate_precisions
    from compressors.recovery.prepare import prepare
    from compressors.recovery.recover import recover
    from compressors.recovery.teacher import TeacherCache

    files = dict.fromkeys(("train", "dev", "test"), Path(arguments["texts"]))
    shape = {"heads": arguments["heads"], "width": arguments["width"]}
    bench = load(Path(arguments["model"]), files, RecoveryConfig(evaluations=1), seeds=1, **shape)
    found: JsonObject = {}
    for precision in candidate_precisions(bench.config):
        config = bench.config.model_copy(update={"steps": arguments["steps"], "precision": precision})
        student, data = bench.student(), prepare(bench.train, config)
        layers = state_layers_for(student, len(bench.network.layers), config)
        teacher = TeacherCache.build(bench.network, data.examples, state_layers=layers, path=context.workdir / "states")
        moments: list[float] = []
        recover(student, teacher, data, config, on_progress=_noting(moments))
        steps = [later - earlier for earlier, later in itertools.pairwise(moments)]
        found[precision] = 1000 * statistics.median(steps[UNTIMED_STEPS:])
    return found


def _noting(moments: list[float]) -> Callable[[object], None]:
    return lambda _: moments.append(time.perf_counter())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True, help="labelled texts; some hundred of them are trained on")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    times: dict[str, list[JsonObject]] = {name: [] for name in WAITING}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        texts.write_text("".join(arguments.train.read_text(encoding="utf-8").splitlines(keepends=True)[:TEXTS]))
        work = {"model": str(arguments.model.resolve()), "texts": str(texts), "steps": arguments.steps}
        work |= {"heads": arguments.heads, "width": arguments.width}
        readable = (texts.parent, arguments.model.resolve())
        for turn in range(arguments.turns):
            for name in sorted(WAITING, reverse=bool(turn % 2)):
                settings = load_settings(home=Path(folder) / "home", runner_readable=readable)
                times[name].append(_turn(settings, WAITING[name], work))
    rows = []
    for name, turns in times.items():
        medians = {key: [turn[key] for turn in turns] for key in turns[0]}
        spread = {f"{k}, range": f"{min(v):.0f} to {max(v):.0f}" for k, v in medians.items()}
        rows.append({"threads wait": name} | {k: f"{statistics.median(v):.0f}" for k, v in medians.items()} | spread)
    print("milliseconds of a step, median over turns")
    print_table(rows)


def _turn(settings: Settings, waiting: dict[str, str], work: JsonObject) -> JsonObject:
    def environment(role: Role, threads: int, private: Path) -> dict[str, str]:
        return runner_environment(role, threads, private) | waiting

    with patch("workers.runner.process.runner_environment", environment):
        runner = RunnerProcess(settings, "compute", settings.home / "work", "benchmarks.training_step")
    try:
        return runner.call("train", work)
    finally:
        runner.close()


if __name__ == "__main__":
    main()
