"""What disturbs or limits measurements on this host."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from infra.cgroup import cpu_limit
from infra.cgroup import memory_limit
from infra.settings import Settings
from workers.checkup.findings import Finding
from workers.checkup.findings import judged

_LARGEST_BUSY_PERCENT = 20.0
_LARGEST_STOLEN_PERCENT = 2.0
_LOOK_SECONDS = 0.5
_LEAST_MEMORY = 4 << 30
_EARLIEST_YEAR = 2026
_SLOW_TIMERS = ("hpet", "acpi_pm", "jiffies")
_CPU = Path("/sys/devices/system/cpu")
_TIMER = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")


def check_cores(_settings: Settings) -> Iterator[Finding]:
    """Whether measurements will have the cores for themselves, at an even speed."""
    cores = len(os.sched_getaffinity(0))
    yield judged(
        "cores",
        good=cores > 1,
        detail=f"{cores} usable",
        hint="Measurements share the only core with the rest of the service and will be noisy.",
        otherwise="warning",
    )
    quota = cpu_limit()
    yield judged(
        "CPU quota",
        good=quota is None or quota >= cores,
        detail="none" if quota is None else f"{quota:g} of {cores} cores",
        hint="The kernel stops processes that used up their quota, in the middle of a measurement. "
        "Give whole cores instead (cpuset, Kubernetes CPU manager policy static).",
        otherwise="warning",
    )
    yield _load()
    yield from _frequency()


def _load() -> Finding:
    before = psutil.cpu_times()
    time.sleep(_LOOK_SECONDS)
    after = psutil.cpu_times()
    total = max(sum(after) - sum(before), 1e-9)
    idle = after.idle - before.idle + getattr(after, "iowait", 0.0) - getattr(before, "iowait", 0.0)
    busy = max(0.0, 100.0 * (1.0 - idle / total))
    stolen = 100.0 * (getattr(after, "steal", 0.0) - getattr(before, "steal", 0.0)) / total
    return judged(
        "load",
        good=busy < _LARGEST_BUSY_PERCENT and stolen < _LARGEST_STOLEN_PERCENT,
        detail=f"{busy:.0f} % busy, {stolen:.0f} % taken by the hypervisor",
        hint="What else runs here makes measurements take longer or end as noisy. Stop it, or measure on another host.",
        otherwise="warning",
    )


def _frequency() -> Iterator[Finding]:
    governor = _read(_CPU / "cpu0/cpufreq/scaling_governor")
    if governor is not None:
        yield judged(
            "frequency",
            good=governor not in ("powersave", "conservative", "ondemand") or (_CPU / "intel_pstate").exists(),
            detail=f"governor {governor}",
            hint="cpupower frequency-set --governor performance",
            otherwise="warning",
        )
    boost = _read(_CPU / "cpufreq/boost")
    no_turbo = _read(_CPU / "intel_pstate/no_turbo")
    if boost == "1" or no_turbo == "0":
        yield Finding(
            "turbo",
            "warning",
            "on: speed depends on temperature and on the other cores",
            "Ratios to the dense model are hardly touched, milliseconds are. Switch it off in the BIOS or in "
            "/sys/devices/system/cpu to compare milliseconds between days.",
        )


def check_memory(settings: Settings) -> Iterator[Finding]:
    """Whether a runner has enough of it, and cannot take what the container does not have."""
    total = psutil.virtual_memory().total
    limit = memory_limit()
    usable = min(total, limit or total)
    yield judged(
        "memory",
        good=usable >= _LEAST_MEMORY,
        detail=f"{usable / 2**30:.1f} GiB"
        + ("" if usable == total else f" by the container's limit, of {total >> 30}"),
        hint="At least 4 GiB are needed for models of the size of BERT-base.",
        otherwise="warning",
    )
    if settings.runner_memory_bytes > usable:
        yield Finding(
            "runner memory",
            "problem",
            f"a runner may use {settings.runner_memory_bytes / 2**30:.1f} GiB, more than there is",
            f"Set PARETUNE_RUNNER_MEMORY_BYTES to {usable * 3 // 4} or less: else the kernel ends it without a word.",
        )


def check_clock(_settings: Settings) -> Iterator[Finding]:
    """Whether the time is plausible, and reading it cheap."""
    year = time.gmtime().tm_year
    yield judged(
        "date",
        good=year >= _EARLIEST_YEAR,
        detail=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        hint="Set the clock: API keys expire and blobs are collected by it.",
        otherwise="problem",
    )
    timer = _read(_TIMER)
    if timer is not None:
        yield judged(
            "timer",
            good=timer not in _SLOW_TIMERS,
            detail=timer,
            hint="Reading this timer takes microseconds. Boot with clocksource=tsc if the machine allows it.",
            otherwise="warning",
        )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
