"""The short form of ``python -m tests.chaos``: a few faults over running jobs on each database."""

from pathlib import Path

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.cluster import Backend
from tests.chaos.cluster import Cluster

FAULTS = 3
TRIALS = 3


@pytest.mark.slow
@pytest.mark.parametrize(("backend", "seed"), [("sqlite", 1), ("postgresql", 2)])
def test_nothing_is_lost(tmp_path: Path, backend: Backend, seed: int) -> None:
    cluster = Cluster(tmp_path, backend, TRIALS)
    said: list[str] = []
    try:
        cluster.start()
        report = Campaign(cluster, seed, said.append).run(FAULTS, FAULTS, seconds=120)
    finally:
        cluster.stop()
        left = cluster.left_behind()
        cluster.remove()
    assert report.violations == []
    assert sum(report.injected.values()) == FAULTS
    assert sum(report.jobs.values()) >= 2
    assert left == []
