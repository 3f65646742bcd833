"""Limits of containers are found in both versions of cgroups, and the memory of a runner follows them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import cgroup
from infra.settings import load_settings

GIB = 2**30
MACHINE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


class Tree:
    """A ``/sys/fs/cgroup`` and a ``/proc/self/cgroup`` to write."""

    def __init__(self, root: Path) -> None:
        self.root = root / "cgroup"
        self.membership = root / "membership"
        self.root.mkdir()

    def member(self, *lines: str) -> None:
        self.membership.write_text("".join(f"{line}\n" for line in lines))

    def write(self, name: str, text: str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    tree = Tree(tmp_path)
    monkeypatch.setattr(cgroup, "_ROOT", tree.root)
    monkeypatch.setattr(cgroup, "_MEMBERSHIP", tree.membership)
    return tree


def test_a_container_of_version_2(tree: Tree) -> None:
    tree.member("0::/")
    tree.write("memory.max", str(3 * GIB))
    tree.write("cpu.max", "150000 100000")
    assert (cgroup.memory_limit(), cgroup.cpu_limit()) == (3 * GIB, 1.5)


def test_a_container_of_version_1(tree: Tree) -> None:
    """Such a container sees the host's path of its cgroup, which is not there, and its own files at the root."""
    tree.member("4:memory:/docker/0123", "1:cpu,cpuacct:/docker/0123", "0::/docker/0123")
    tree.write("memory/memory.limit_in_bytes", str(2 * GIB))
    tree.write("cpu/cpu.cfs_quota_us", "50000")
    tree.write("cpu/cpu.cfs_period_us", "100000")
    assert (cgroup.memory_limit(), cgroup.cpu_limit()) == (2 * GIB, 0.5)


def test_the_smallest_limit_of_the_cgroups_around_holds(tree: Tree) -> None:
    tree.member("0::/system.slice/paretune.service")
    tree.write("system.slice/memory.max", str(4 * GIB))
    tree.write("system.slice/paretune.service/memory.max", str(6 * GIB))
    tree.write("system.slice/paretune.service/cpu.max", "max 100000")
    assert (cgroup.memory_limit(), cgroup.cpu_limit()) == (4 * GIB, None)


@pytest.mark.parametrize("text", ["max", str((1 << 63) - 4096)])
def test_no_limit(tree: Tree, text: str) -> None:
    assert (cgroup.memory_limit(), cgroup.cpu_limit()) == (None, None)
    tree.member("4:memory:/../..", "1:cpu:/", "0::/../..")
    tree.write("memory.max", "max")
    tree.write("memory/memory.limit_in_bytes", text)
    tree.write("cpu/cpu.cfs_quota_us", "-1")
    tree.write("cpu/cpu.cfs_period_us", "100000")
    assert (cgroup.memory_limit(), cgroup.cpu_limit()) == (None, None)


def test_a_runner_may_use_three_quarters_of_what_its_container_has(tree: Tree) -> None:
    tree.member("0::/")
    tree.write("memory.max", "max")
    assert load_settings().runner_memory_bytes == MACHINE * 3 // 4
    tree.write("memory.max", str(MACHINE // 2))
    assert load_settings().runner_memory_bytes == MACHINE // 2 * 3 // 4
    tree.write("memory.max", str(2 * MACHINE))
    assert load_settings().runner_memory_bytes == MACHINE * 3 // 4


def _own_cgroup() -> Path | None:
    """A new cgroup with a limit on memory, where this user may make one."""
    for base in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        name = "memory.limit_in_bytes" if base.name == "memory" else "memory.max"
        directory = base / f"paretune-test-{os.getpid()}"
        try:
            directory.mkdir()
            (directory / name).write_text(str(GIB))
        except OSError:
            if directory.is_dir():
                directory.rmdir()
            continue
        return directory
    return None


def test_a_real_cgroup() -> None:
    directory = _own_cgroup()
    if directory is None:
        pytest.skip("this user may make no cgroup")
    program = (
        "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()));"
        "from infra.settings import load_settings; print(load_settings().runner_memory_bytes)"
    )
    command = [sys.executable, "-c", program, str(directory / "cgroup.procs")]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    finally:
        directory.rmdir()
    assert int(printed) == GIB * 3 // 4
