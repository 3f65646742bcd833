"""The service under load.

    python -m benchmarks.service_load                             # clients, coordinator, lists
    python -m benchmarks.service_load --parts coordinator --trials 1000
    python -m benchmarks.service_load --parts overhead --home ~/.paretune

clients      500 clients on 50 jobs for 60 s: half poll the status every 5 s, half watch the events
coordinator  time of one ask and the two tells that follow it, in jobs with up to 5,000 trials, on SQLite
lists        pages of a list of 100,000 jobs, at the beginning and deep inside
overhead     of the jobs in a service's home: share of wall time without compression, evaluation or measurement
"""

import argparse
import logging
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.service_load.clients import load_row
from benchmarks.service_load.clients import run_load
from benchmarks.service_load.coordinator import ask_and_tell
from benchmarks.service_load.listing import list_pages
from benchmarks.service_load.overhead import overhead_rows
from benchmarks.tables import print_table

_PARTS = ("clients", "coordinator", "lists", "overhead")


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=_PARTS, help="default: all; overhead only with --home")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000, 5000])
    parser.add_argument("--strategies", nargs="+", default=["guided", "direct"], choices=["guided", "direct"])
    parser.add_argument("--listed", type=int, default=100_000)
    parser.add_argument("--home", type=Path, help="home of a service that has done jobs")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)  # of the HTTP clients
    parts = arguments.parts or [part for part in _PARTS if part != "overhead" or arguments.home]
    for part in parts:
        print(f"\n{part}\n")
        with tempfile.TemporaryDirectory(prefix="pt-load-", ignore_cleanup_errors=True) as folder:
            _PRINT[part](arguments, Path(folder))


def _clients(arguments: argparse.Namespace, folder: Path) -> None:
    load = run_load(folder, clients=arguments.clients, jobs=arguments.jobs, seconds=arguments.seconds)
    print_table([load_row(load)])
    for error, count in Counter(load.errors).most_common(5):
        print(f"{count} x {error}")


def _coordinator(arguments: argparse.Namespace, folder: Path) -> None:
    rows = []
    for strategy in arguments.strategies:
        for trials in arguments.trials:
            times = ask_and_tell(strategy, trials, folder)
            row = {"strategy": strategy, "trials": f"{trials}"}
            rows.append(row | {name: f"{value:.1f} ms" for name, value in times.items()})
    print_table(rows)


def _lists(arguments: argparse.Namespace, folder: Path) -> None:
    print_table(list_pages(folder, arguments.listed))


def _overhead(arguments: argparse.Namespace, _folder: Path) -> None:
    if arguments.home is None:
        raise SystemExit("overhead needs --home, the home of a service that has done jobs")
    rows = overhead_rows(arguments.home)
    if not rows:
        raise SystemExit(f"no job has succeeded in {arguments.home}")
    print_table(rows)


_PRINT = {"clients": _clients, "coordinator": _coordinator, "lists": _lists, "overhead": _overhead}

if __name__ == "__main__":
    main()
