"""How busy many workers are, and what would be the first thing to stop 1,000 of them.

    python -m benchmarks.scale_out
    python -m benchmarks.scale_out --workers 8 --seconds 5 --jobs 2

Starts PostgreSQL, Valkey and real Celery workers: evaluating ones on several hosts (network namespaces, where the
kernel lets us), one for the searches, one for a device. Evaluations sleep for a known time, measurements take none;
claims, leases, heartbeats, messages and the coordinator (strategy `guided`) are the real ones. Utilisation is the
share of the workers' time, in a window in which there is always something to do, that was spent in evaluations.
"""

import argparse
import math
import tempfile
import time
from pathlib import Path

from sqlmodel import col
from sqlmodel import select

from benchmarks import paper_jobs
from benchmarks.scale_out.cluster import Cluster
from benchmarks.scale_out.cluster import wait_until
from benchmarks.scale_out.extrapolation import print_extrapolation
from benchmarks.scale_out.hosts import Hosts
from benchmarks.tables import print_table
from infra.database.models import Step
from infra.database.models import Trial

_ROUNDS = 3
"""Length of the window in evaluations."""


def run(workers: int, seconds: float, jobs: int, hosts: Hosts) -> dict[str, float]:
    """Run one size; returns utilisation and what the parts used during the window."""
    jobs = min(jobs, workers)
    in_flight = math.ceil(workers / jobs) + max(2, workers // (4 * jobs))
    with (
        tempfile.TemporaryDirectory(prefix="pt-scale-", ignore_cleanup_errors=True) as folder,
        Cluster(Path(folder), hosts, workers=workers, seconds=seconds, in_flight=in_flight) as cluster,
    ):
        paper_jobs.submit(cluster.database, jobs)
        cluster.start_workers()
        wait_until(lambda: _running(cluster) >= workers, 180.0, f"{workers} busy workers")
        time.sleep(seconds)  # the workers get out of step
        start, before = time.time(), cluster.cpu_seconds()
        time.sleep(_ROUNDS * seconds)
        end, after = time.time(), cluster.cpu_seconds()
        connections = cluster.connections()
        time.sleep(1.3 * seconds)  # until the evaluations of the window have ended
        slept = _slept(cluster)
        if not slept:
            raise RuntimeError(cluster.describe())
    inside = [max(0.0, min(entry["to"], end) - max(entry["from"], start)) for entry in slept]
    trials = sum(start <= entry["to"] < end for entry in slept)
    result = {"workers": workers, "seconds": seconds, "jobs": jobs, "trials": trials, "connections": connections}
    result["utilisation"] = sum(inside) / (workers * (end - start))
    result["processes"] = len({entry["worker"] for entry in slept})
    return result | {f"cpu:{name}": (after[name] - before[name]) / trials for name in after}


def _running(cluster: Cluster) -> int:
    with cluster.database.read_session() as session:
        running = select(Step.id).where(Step.queue == "compute", col(Step.state) == "running")
        return len(session.exec(running).all())


def _slept(cluster: Cluster) -> list[dict[str, float]]:
    with cluster.database.read_session() as session:
        facts = session.exec(select(Trial.facts)).all()
    return [entry["slept"] for entry in facts if "slept" in entry]


def main() -> None:
    """Parse the arguments and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of an evaluation")
    parser.add_argument("--jobs", type=int, default=4, help="jobs that share the workers")
    parser.add_argument("--hosts", type=int, default=4)
    arguments = parser.parse_args()
    results = []
    with Hosts(arguments.hosts) as hosts:
        print(f"hosts: {f'{arguments.hosts} network namespaces' if hosts.real else f'this one only ({hosts.reason})'}")
        for workers in arguments.workers:
            results.append(run(workers, arguments.seconds, arguments.jobs, hosts))
            print_table([_row(results[-1])])
    print()
    print_table([_row(result) for result in results])
    print_extrapolation(results[-1])


def _row(result: dict[str, float]) -> dict[str, str]:
    names = ("database", "broker", "search", "device", "workers", "maintenance")
    return {
        "workers": f"{result['workers']:.0f}",
        "processes seen": f"{result['processes']:.0f}",
        "jobs": f"{result['jobs']:.0f}",
        "evaluation": f"{result['seconds']:.0f} s",
        "trials": f"{result['trials']:.0f}",
        "utilisation": f"{result['utilisation']:.1%}",
    } | {f"{name} ms/trial": f"{result[f'cpu:{name}'] * 1e3:.0f}" for name in names}


if __name__ == "__main__":
    main()
