"""Facts about the machine that a latency was measured on."""

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from typing import Any

from profilers.isa import this_cpu

_PACKAGES = ("numpy", "onnxruntime", "openvino", "torch")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def cpu_limit() -> float | None:
    """Return the cgroup's CPU quota in cores (cgroup v2 or v1); ``None`` without a limit."""
    v2 = _read("/sys/fs/cgroup/cpu.max")
    if v2 is not None:
        quota, _, period = v2.partition(" ")
        return None if quota == "max" else int(quota) / int(period)
    quota_v1 = _read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us")
    period_v1 = _read("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
    if quota_v1 is None or period_v1 is None or int(quota_v1) < 0:
        return None
    return int(quota_v1) / int(period_v1)


def memory_limit() -> int | None:
    """Return the cgroup's memory limit in bytes; ``None`` without a limit."""
    text = _read("/sys/fs/cgroup/memory.max") or _read("/sys/fs/cgroup/memory/memory.limit_in_bytes")
    if text is None or text == "max":
        return None
    limit = int(text)
    return limit if limit < 1 << 60 else None


def package_versions() -> dict[str, str]:
    """Return the versions of the runtimes that are installed, without importing them."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@cache
def hardware_fingerprint() -> str:
    """Return 16 hexadecimal digits that name this kind of machine: CPU model, instruction sets, cores, memory class.

    Equal on two machines that should give equal latencies, and stable over reboots.
    """
    cpu = this_cpu()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    text = f"{cpu.vendor}|{cpu.model}|{sorted(cpu.flags)}|{os.cpu_count()}|{max(memory, 1).bit_length()}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def machine_facts() -> dict[str, Any]:
    """Return the facts that do not change while the process lives; JSON types only."""
    cpu = this_cpu()
    governor = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {
        "cpu": cpu.model,
        "cpu_flags": sorted(cpu.flags),
        "cores": os.cpu_count(),
        "cpu_limit": cpu_limit(),
        "memory_limit": memory_limit(),
        "governor": governor,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": package_versions(),
        "fingerprint": hardware_fingerprint(),
    }
