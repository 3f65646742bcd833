"""Limits that the cgroups of this process set: what a container may use is often less than what the host has."""

from collections.abc import Iterator
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 writes a number of about 2**63 where there is no limit."""


def memory_limit() -> int | None:
    """Return how many bytes this process and its neighbours in the cgroup may use; ``None`` without a limit.

    Cgroups lie in each other, and the smallest limit holds. In a container, the outermost that can be seen is its own.
    """
    found = [
        int(text)
        for directory in _directories("memory")
        for name in ("memory.max", "memory.limit_in_bytes")  # versions 2 and 1
        if (text := _read(directory / name)) not in ("", "max")
    ]
    return min((limit for limit in found if limit < _NO_LIMIT), default=None)


def cpu_limit() -> float | None:
    """Return the CPU quota in cores, the smallest of all cgroups around this process; ``None`` without a limit."""
    found = []
    for directory in _directories("cpu"):
        quota, _, period = _read(directory / "cpu.max").partition(" ")
        if not quota:
            quota, period = _read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")
        if quota not in ("", "max") and period and int(quota) > 0:
            found.append(int(quota) / int(period))
    return min(found, default=None)


def _directories(controller: str) -> Iterator[Path]:
    """Yield the directories of the cgroups around this process, the innermost first."""
    for line in _read(_MEMBERSHIP).splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = _ROOT / controller if controllers else _ROOT
        inner = Path(path.lstrip("/"))
        if ".." not in inner.parts:  # else it lies outside of what this container can see
            yield from (base / part for part in (inner, *inner.parents) if part.parts)
        yield base


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
