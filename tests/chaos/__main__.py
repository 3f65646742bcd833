"""Kill, freeze, fill and confuse a running service, and look whether anything was lost: ``python -m tests.chaos``.

Real processes (API, Celery workers, runners, maintenance loop, Valkey, PostgreSQL) do jobs whose model work is cheap;
coordinator, steps, leases, relay, runners and store are those of the service. Exit status 1 if an invariant is broken.
Ctrl-C stops after the current round.
"""

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from statistics import median

from tests.chaos.campaign import Campaign
from tests.chaos.campaign import Report
from tests.chaos.cluster import Cluster

INVARIANTS = (
    "every job reaches an end state, with its cause if it failed",
    "no trial is lost or counted twice",
    "no step is left queued or running, or started more often than allowed",
    "no orphan process",
    "no blob without an owner after collection, none missing or damaged that a row needs",
    "the front equals the one recomputed from the trials",
)


def main() -> int:
    """Run one campaign; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many faults to inject (default: %(default)s)")
    parser.add_argument("--backend", choices=["sqlite", "postgresql"], default="sqlite", help="database to run on")
    parser.add_argument("--seed", type=int, default=0, help="chooses faults and victims (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop early after this time (default: %(default)s)")
    parser.add_argument("--round", type=int, default=17, help="faults between two full checks (default: %(default)s)")
    parser.add_argument("--keep", type=Path, help="leave logs, database and blobs in this directory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as temporary:
        cluster = Cluster(arguments.keep or Path(temporary), arguments.backend)
        try:
            cluster.start()
            campaign = Campaign(cluster, arguments.seed, tell)
            signal.signal(signal.SIGINT, lambda *_: campaign.stop())
            report = campaign.run(arguments.faults, arguments.round, arguments.minutes * 60)
        finally:
            cluster.stop()
            left = cluster.left_behind()
            cluster.remove()
    report.violations += [f"process {process.pid} outlived the service" for process in left]
    print_report(report, arguments.backend, arguments.seed)
    return 1 if report.violations else 0


def print_report(report: Report, backend: str, seed: int) -> None:
    """Print the table of faults, the jobs, and the invariants."""
    tell(f"\n{backend}, seed {seed}: {sum(report.injected.values())} faults in {report.seconds:.0f} s\n")
    tell(f"| {'fault':32} | injected | met a victim |")
    tell(f"|{'-' * 34}|---------:|-------------:|")
    for name, count in sorted(report.injected.items()):
        tell(f"| {name:32} | {count:8} | {report.hit[name]:12} |")
    tell(f"\njobs:   {_counts(report.jobs)}")
    tell(f"trials: {_counts(report.trials)}")
    for cause, count in report.causes.most_common():
        tell(f"failed {count} x: {cause}")
    for stages in report.stages.values():
        tell(f"cancelled in the stages: {', '.join(sorted(stages))}")
    if report.drained:
        tell(f"last fault to last job's end: median {median(report.drained):.0f} s, most {max(report.drained):.0f} s")
    tell("\ninvariants:" if not report.violations else "\nBROKEN:")
    for text in report.violations or INVARIANTS:
        tell(f"  {text}")


def _counts(counter: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counter.items()))


def tell(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
