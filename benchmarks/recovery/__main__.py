"""Quality against training time, for each starting point, loss, precision and kind of teacher; labels; peak memory.

    python -m benchmarks.recovery --model DIR --train FILE --dev FILE --test FILE
    python -m benchmarks.recovery ... --minutes 1 3 --seeds 3 --sections starts --results FILE
    python -m benchmarks.recovery ... --steps 200 800 --sections losses
    python -m benchmarks.recovery --print FILE

starts     what is removed first: OBS, Taylor importance, magnitude, whole layers
losses     the terms of the loss, its temperature, and variants of the texts
labels     the same training with labels and with the text only
precision  bf16 against fp32: speed and outcome
kernels    what bf16 costs beside its products: attention's gradient, products of a new number of tokens
teacher    outputs of the dense model from a cache against computed at every step: speed
finish     what a training that knows about int8 brings after the healing, and what it takes
memory     peak of a training in a process of its own

Minutes and milliseconds of trainings are time of the processor for each thread, evaluations of the held-back part
included, so those tables do not depend on what else the machine computes; ``kernels`` needs a quiet one. Budgets in
``--minutes`` give a few steps more or less each time; with ``--steps`` another run trains the same models.
Accuracies are on texts that neither training nor the choice of the checkpoint has seen. With several seeds, means have
the half-width of a 95 % interval over seeds. Each section is appended to ``--results`` when it is done, so that a long
benchmark can be run in pieces, with ``--only`` row by row; ``--print`` shows all that is stored.
"""

import argparse
import json
from pathlib import Path

import torch

from benchmarks.recovery.bench import Budget
from benchmarks.recovery.bench import accuracy
from benchmarks.recovery.bench import load
from benchmarks.recovery.finish import finishes
from benchmarks.recovery.kernels import kernels
from benchmarks.recovery.memory import peak_memory
from benchmarks.recovery.quality import LOSS_CHANGES
from benchmarks.recovery.quality import STARTS
from benchmarks.recovery.quality import labels
from benchmarks.recovery.quality import loss_terms
from benchmarks.recovery.quality import starts
from benchmarks.recovery.speed import precisions
from benchmarks.recovery.speed import teachers
from benchmarks.tables import print_table
from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.torch_module import to_module

SECTIONS = {
    "starts": starts,
    "losses": loss_terms,
    "labels": labels,
    "precision": precisions,
    "kernels": kernels,
    "teacher": teachers,
    "finish": finishes,
    "memory": peak_memory,
}
FILES = ("model", "train", "dev", "test")


def main() -> None:
    """Parse the arguments and print the tables that were asked for."""
    arguments = parse()
    if arguments.print:
        print_stored(arguments.print)
        return
    torch.set_num_threads(arguments.threads)
    config = RecoveryConfig(learning_rate=arguments.learning_rate, augmentation=Augmentation(copies=arguments.copies))
    bench = load(
        arguments.model,
        {name: getattr(arguments, name) for name in FILES[1:]},
        config,
        heads=arguments.heads,
        width=arguments.width,
        seeds=arguments.seeds,
        only=arguments.only,
    )
    dense = to_module(bench.network)
    print(f"dense: dev {accuracy(dense, bench.dev):.2f}, test {accuracy(dense, bench.test):.2f}")
    budgets = [Budget(steps=steps) for steps in arguments.steps or ()] or [
        Budget(seconds=60 * minutes) for minutes in arguments.minutes
    ]
    shape = f"{arguments.heads} heads, FFN {arguments.width}, {arguments.threads} threads, {arguments.seeds} seeds"
    for section in arguments.sections:
        print(f"\n{section}: {shape}", flush=True)
        rows = SECTIONS[section](bench, budgets)
        print_table(rows)
        if arguments.results:
            with arguments.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"section": section, "shape": shape, "rows": rows}) + "\n")


def print_stored(path: Path) -> None:
    """Print the tables of every section that was stored; rows that were run in pieces are in one table."""
    tables: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        stored = json.loads(line)
        tables.setdefault((stored["section"], stored["shape"]), []).extend(stored["rows"])
    for (section, shape), rows in tables.items():
        print(f"\n{section}: {shape}")
        print_table(rows)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in FILES:
        parser.add_argument(f"--{name}", type=Path)
    rows = [*STARTS, *LOSS_CHANGES]
    parser.add_argument("--heads", type=int, default=4, help="heads that every layer keeps")
    parser.add_argument("--width", type=int, default=384, help="feed-forward channels that every layer keeps")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, nargs="+", default=[1.0, 5.0], help="of each training (default: 1 5)")
    budget.add_argument("--steps", type=int, nargs="+", help="of each training, in place of --minutes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--learning-rate", type=float, default=RecoveryConfig().learning_rate)
    parser.add_argument("--copies", type=int, default=0, help="augmented variants of each text")
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=rows,
        metavar="ROW",
        help="of starts and losses: " + ", ".join(f'"{name}"' for name in rows),
    )
    parser.add_argument("--results", type=Path, help="JSON lines, to which each finished section is appended")
    parser.add_argument("--print", type=Path, metavar="FILE", help="print what --results has stored, and run nothing")
    arguments = parser.parse_args()
    missing = [name for name in FILES if getattr(arguments, name) is None]
    if missing and not arguments.print:
        parser.error(f"give --{' --'.join(missing)}, or --print FILE")
    return arguments


if __name__ == "__main__":
    main()
