"""A front of healed embedding models, judged on text that neither search nor training has seen.

    python -m benchmarks.embeddings --model DIR [--text FILE] [--budget 10m] [--recover 20m] [--max-drop 0.02]

Needs no labels. A quarter of the texts is kept away from the service. Of the others, the job takes half for search and
verdict, half for calibration and training towards the dense model's embeddings. Then, outside of the service, the
models of its front and both baselines are compared with the dense model on the texts that were kept away, padded to
the workload as they are deployed, and timed in the same interleaved blocks.

neighbours  share of the ten nearest texts (by cosine, of those that were kept away) that are the dense model's
rank corr.  Spearman's, of the similarities of all pairs with the dense model's
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.contenders import ONE_LINER
from benchmarks.contenders import PROFILERS
from benchmarks.contenders import Contender
from benchmarks.contenders import Verdict
from benchmarks.contenders import baselines
from benchmarks.contenders import downloaded
from benchmarks.contenders import encode
from benchmarks.contenders import judge
from benchmarks.contenders import print_promises
from benchmarks.tables import print_table
from examples.demo_text import sentences
from examples.service import running_service
from paretune.cli.durations import parse_duration
from paretune.client import Client
from profilers.quality.evaluate import Task
from profilers.quality.examples import Examples
from profilers.quality.examples import read_examples
from profilers.quality.splits import without_overlap
from profilers.types import Estimate
from search.presenter import inverse
from search.presenter import quotient

TASK: Task = "embedding"
PARTS = ("evaluation", "training", "evaluation", "training", "evaluation", "training", "unseen", "unseen")
"""Which part every eighth text is for."""
CALIBRATION_TEXTS = 300
MOST_POINTS = 8
"""Models of a front that are downloaded."""


def main() -> None:
    """Run the job, then the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of an embedding model")
    parser.add_argument("--text", type=Path, help="JSONL, CSV or Parquet; default: the topics of Python's help()")
    parser.add_argument("--text-column", default="text")
    parser.add_argument("--device", default="local-cpu", choices=list(PROFILERS))
    parser.add_argument("--budget", type=parse_duration, default=600.0, help="of the job (default: 10m)")
    parser.add_argument("--recover", type=parse_duration, default=1200.0, help="training, on top (default: 20m)")
    parser.add_argument("--max-drop", type=float, default=0.02, help="1 - mean cosine (default: 0.02)")
    parser.add_argument("--seconds", type=float, default=12.0, help="of timing for each file in the comparison")
    parser.add_argument("--home", type=Path, help="keep the service's directory here, to look at the job afterwards")
    parser.add_argument("--output", type=Path, default=Path("benchmark-output"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    parts = divided(texts(arguments.text, arguments.text_column))
    print(", ".join(f"{len(part)} texts for {name}" for name, part in parts.items()))
    with running_service(arguments.home) as client:
        ours = run_job(client, parts, arguments)
    with tempfile.TemporaryDirectory() as scratch:
        training, unseen = parts["training"], parts["unseen"]
        some = training.select(np.arange(min(CALIBRATION_TEXTS, len(training)), dtype=np.int64))
        others = baselines(arguments.model, Path(scratch), encode(arguments.model, some), TASK)
        verdicts = judge([*others, *ours], encode(arguments.model, unseen), unseen, arguments.seconds, TASK)
    print_front(verdicts, len(unseen))
    print_promises(verdicts)


def texts(path: Path | None, column: str) -> Examples:
    """Return distinct texts, of the file or of Python's help."""
    found = Examples(tuple(sentences())) if path is None else read_examples(path, text_column=column)
    return found.select(without_overlap(found, found.select(np.empty(0, dtype=np.int64))))


def divided(examples: Examples) -> dict[str, Examples]:
    """Return the texts for evaluation, for training, and those that the service never sees."""
    part = np.resize(np.array(PARTS), len(examples))
    return {name: examples.select(np.flatnonzero(part == name)) for name in dict.fromkeys(PARTS)}


def run_job(client: Client, parts: dict[str, Examples], arguments: argparse.Namespace) -> list[Contender]:
    """Run the job, and download the best models of its front."""
    uploaded = {}
    for name in ("evaluation", "training"):
        path = arguments.output / f"{name}.jsonl"
        lines = (json.dumps({"text": text}) + "\n" for text in parts[name].texts)
        path.write_text("".join(lines), encoding="utf-8")
        uploaded[name] = client.upload_dataset(path)
    started = time.monotonic()
    job = client.submit(
        client.upload_model(arguments.model),
        uploaded["evaluation"],
        calibration=uploaded["training"],
        train=uploaded["training"],
        task=TASK,
        device=arguments.device,
        max_drop=arguments.max_drop,
        budget_seconds=arguments.budget,
        recover={"seconds": arguments.recover},
    )
    client.wait(job)
    front = client.front(job)
    (arguments.output / "embeddings.html").write_text(client.report_html(job), encoding="utf-8")
    print(f"{time.monotonic() - started:.0f} s from submit to the end; {front['trials']}; {front['message']}")
    points = front["points"][:MOST_POINTS]
    best = (front["best"] or {}).get("id")
    return [
        downloaded(client, job, arguments.device, point, arguments.output, "best: " if point["id"] == best else "")
        for point in points
    ]


def print_front(verdicts: Sequence[Verdict], count: int) -> None:
    """Print the table, the fastest first."""
    one_liner = next(found.ratio for found in verdicts if found.contender.name == ONE_LINER)
    rows = []
    for found in sorted(verdicts, key=lambda found: found.ratio.value):
        drop, details = found.quality.drop, found.quality.details
        rows.append(
            {
                "model": found.contender.name,
                "x fp32 ORT": _interval(inverse(found.ratio)),
                "x int8 one-liner": _interval(quotient(one_liner, found.ratio)),
                "1 - cosine, points": _interval(drop, 100.0),
                "neighbours": f"{details['neighbour_overlap']:.1%}",
                "rank corr.": f"{details['similarity_spearman']:.4f}",
                "timing": found.status,
            }
        )
    print(f"\non {count} texts that the service has not seen; 95 % intervals in brackets")
    print_table(rows)


def _interval(estimate: Estimate, scale: float = 1.0) -> str:
    return f"{scale * estimate.value:.2f} ({scale * estimate.low:.2f} - {scale * estimate.high:.2f})"


if __name__ == "__main__":
    main()
