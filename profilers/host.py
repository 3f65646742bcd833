"""Facts about the machine that a latency was measured on."""

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from typing import Any

from infra.cgroup import cpu_limit
from infra.cgroup import memory_limit
from profilers.isa import this_cpu

_PACKAGES = ("numpy", "onnxruntime", "openvino", "torch")


def _read(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


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
