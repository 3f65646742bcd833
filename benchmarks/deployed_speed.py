"""The main claim: submit a model, wait, and compare what comes back with what a user would otherwise have.

    python -m benchmarks.deployed_speed --model DIR --data DIR [--budget 10m] [--recover 20m] [--hand DIR]

``--data`` is a folder with ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl`` (``text``, ``label``). A job runs on a
service of its own, for each device: evaluation on dev, calibration on the texts of train. Then, outside of the
service, its front, the baselines of both runtimes and what ``benchmarks.hand_recipe`` has left in ``--hand`` are
evaluated on test, padded to the workload as they are deployed, and timed in the same interleaved blocks.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import PROFILERS
from benchmarks.contenders import TASK
from benchmarks.contenders import Contender
from benchmarks.contenders import baselines
from benchmarks.contenders import by_hand
from benchmarks.contenders import downloaded
from benchmarks.contenders import encode
from benchmarks.contenders import judge
from benchmarks.contenders import print_comparison
from benchmarks.contenders import print_promises
from examples.service import running_service
from paretune.cli.durations import parse_duration
from profilers.quality.examples import read_examples

CALIBRATION_TEXTS = 300
POINTS = 4
"""Points of a front that are downloaded, beside the best."""


def main() -> None:
    """Run the jobs, then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--devices", nargs="+", default=list(PROFILERS), choices=list(PROFILERS))
    parser.add_argument("--budget", type=parse_duration, default=600.0, help="of each job (default: 10m)")
    parser.add_argument("--recover", type=parse_duration, default=None, help="recovery training in each job, on top")
    parser.add_argument("--hand", type=Path, help="output of benchmarks.hand_recipe, to compare with")
    parser.add_argument("--strategy", default="guided")
    parser.add_argument("--max-drop", type=float, default=0.01)
    parser.add_argument("--seconds", type=float, default=12.0, help="of timing for each file in the comparison")
    parser.add_argument("--home", type=Path, help="keep the service's directory here, to look at the job afterwards")
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    with running_service(arguments.home) as client:
        ours = [contender for device in arguments.devices for contender in _run_job(client, device, arguments)]
    with tempfile.TemporaryDirectory() as scratch:
        test = read_examples(arguments.data / "test.jsonl", text_column="text", label_column="label")
        train = read_examples(arguments.data / "train.jsonl", text_column="text")
        calibration = encode(arguments.model, train.select(np.arange(CALIBRATION_TEXTS, dtype=np.int64)))
        others = baselines(arguments.model, Path(scratch), calibration)
        others += by_hand(arguments.hand, Path(scratch), calibration) if arguments.hand else []
        verdicts = judge([*others, *ours], encode(arguments.model, test), test, arguments.seconds)
    print_comparison(verdicts)
    print_promises(verdicts)


def _run_job(client: Any, device: str, arguments: argparse.Namespace) -> list[Contender]:
    """Run one job, print where the time went, download its best model and some of its front."""
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
        budget_seconds=arguments.budget,
        **fields,
    )
    client.wait(job)
    wall = time.monotonic() - started
    front, report, trials = client.front(job), client.report(job), list(client.trials(job))
    (arguments.output / f"{device}.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    (arguments.output / f"{device}.html").write_text(client.report_html(job), encoding="utf-8")
    (arguments.output / f"{device}.png").write_bytes(client.report_png(job))
    print(f"\n{device}: {wall:.0f} s from submit to the end; {len(trials)} trials; {front['message']}")
    print(
        "wall time by phase (s):",
        {k: round(v, 1) for k, v in report["summary"]["wall_seconds"].items() if v and k != "by_step"},
    )
    best = front["best"]
    if best is None or best["kind"] == "baseline":
        return []
    others = [point for point in front["points"] if point["number"] != best["number"]]
    near = sorted(others, key=lambda point: abs(point["quality"]["drop"]["value"] - arguments.max_drop))[:POINTS]
    found = [downloaded(client, job, device, best, arguments.output, "best: ")]
    return found + [downloaded(client, job, device, point, arguments.output) for point in near]


if __name__ == "__main__":
    main()
