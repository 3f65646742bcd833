"""The default choice of cores, on trees as the kernel writes them for several kinds of machines, and on this one."""

import os
from pathlib import Path

import pytest

from profilers.isolation import default_affinity
from profilers.topology import SYSFS
from profilers.topology import spread_order


def machine(root: Path, siblings: list[str], capacities: list[int] | None = None, clocks: list[int] | None = None):
    """Write the files of CPUs 0, 1, ...: who shares each one's core, its capacity, and its highest clock in MHz."""
    for cpu, text in enumerate(siblings):
        folder = root / f"cpu{cpu}"
        (folder / "topology").mkdir(parents=True)
        (folder / "topology" / "thread_siblings_list").write_text(f"{text}\n")
        if capacities:
            (folder / "cpu_capacity").write_text(f"{capacities[cpu]}\n")
        if clocks:
            (folder / "cpufreq").mkdir()
            (folder / "cpufreq" / "cpuinfo_max_freq").write_text(f"{clocks[cpu]}000\n")
    return root


ADJACENT = ["0-1", "0-1", "2-3", "2-3"]
APART = ["0,2", "1,3", "0,2", "1,3"]
HYBRID = [*ADJACENT, "4", "5", "6", "7"]
"""Two performance cores with two threads each, four efficiency cores."""


@pytest.mark.parametrize(
    ("siblings", "capacities", "clocks", "threads", "expected"),
    [
        (["0", "1", "2"], None, None, 1, {2}),
        (["0", "1", "2"], [1024] * 3, None, 2, {1, 2}),
        (ADJACENT, None, None, 2, {1, 3}),  # not both threads of the last core
        (APART, None, None, 2, {2, 3}),
        (ADJACENT, None, None, 3, {1, 2, 3}),
        (HYBRID, [1024] * 4 + [600] * 4, None, 1, {3}),
        (HYBRID, None, [5000] * 4 + [3800] * 4, 2, {1, 3}),
        (HYBRID, [1024] * 8, [5000] * 4 + [3800] * 4, 2, {1, 3}),  # how Linux shows hybrid ones with two threads
        (HYBRID, None, [5000] * 4 + [3800] * 4, 4, {1, 3, 6, 7}),  # a slow core of its own beats a shared fast one
        (HYBRID, [1024] * 4 + [600] * 4, None, 7, {1, 2, 3, 4, 5, 6, 7}),
        (["0", "1", "2", "3"], [1024, 1024, 400, 400], [2000, 2000, 2400, 2400], 1, {1}),  # capacity counts first
        (["0", "1"], None, None, 2, {0, 1}),
        (["0", "1"], None, None, 9, {0, 1}),
    ],
)
def test_every_thread_gets_a_fast_core_of_its_own(tmp_path, siblings, capacities, clocks, threads, expected):
    root = machine(tmp_path, siblings, capacities, clocks)
    assert default_affinity(threads, frozenset(range(len(siblings))), root) == expected


def test_only_allowed_cpus_are_taken(tmp_path):
    root = machine(tmp_path, HYBRID, None, [5000] * 4 + [3800] * 4)
    assert default_affinity(1, frozenset({0, 5, 6}), root) == {0}
    assert default_affinity(2, frozenset({0, 1, 6}), root) == {1, 6}


@pytest.mark.parametrize(
    ("threads", "allowed", "expected"), [(1, {0, 1}, {1}), (2, {0, 1, 5}, {1, 5}), (2, {0, 1}, {0, 1}), (9, {3}, {3})]
)
def test_without_the_files_the_last_cpus_are_taken(tmp_path, threads, allowed, expected):
    assert default_affinity(threads, frozenset(allowed), tmp_path) == expected


def test_a_number_that_is_not_known_of_all_ranks_none(tmp_path):
    root = machine(tmp_path, ["0", "1", "2"], [1024, 1024, 600], [3000, 5000, 4000])
    (root / "cpu1" / "cpu_capacity").unlink()
    assert spread_order(range(3), root) == [1, 2, 0]
    (root / "cpu0" / "cpufreq" / "cpuinfo_max_freq").write_text("<unknown>\n")
    assert spread_order(range(3), root) == [2, 1, 0]


def test_this_machine():
    allowed = os.sched_getaffinity(0)
    order = spread_order(allowed)
    assert sorted(order) == sorted(allowed)
    texts = {cpu: SYSFS / f"cpu{cpu}" / "topology" / "thread_siblings_list" for cpu in allowed}
    cores = {path.read_text() if path.exists() else str(cpu) for cpu, path in texts.items()}
    first = {texts[cpu].read_text() if texts[cpu].exists() else str(cpu) for cpu in order[: len(cores)]}
    assert first == cores  # every core once before any twice
