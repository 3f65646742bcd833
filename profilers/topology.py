"""Which logical CPUs share a core, and which of the cores are fast, as Linux tells in sysfs.

Files that are missing (a container, another system) mean that nothing is known: all are taken for equal cores then.
"""

from collections.abc import Iterable
from pathlib import Path

SYSFS = Path("/sys/devices/system/cpu")
_SPEEDS = ("cpu_capacity", "cpufreq/cpuinfo_max_freq")
"""Numbers that rank cores, the first difference decides: the kernel's capacity (1024 for the fastest), which it leaves
equal on hybrid processors with simultaneous multithreading; and the highest clock, kHz."""


def spread_order(cpus: Iterable[int], root: Path = SYSFS) -> list[int]:
    """Order logical CPUs such that the first ``n`` are the best for ``n`` busy threads.

    One CPU of each core comes before any second one, which would share the core's arithmetic units with the first; fast
    cores come before slow ones (the efficiency cores of hybrid processors), and among equals the last come first.

    Args:
        cpus: Numbers of the CPUs that may be used.
        root: The folder that has ``cpu0``, ``cpu1``, ...
    """
    allowed = sorted(cpus, reverse=True)
    speeds = _speeds(allowed, root)
    taken: dict[str, int] = {}
    rounds: dict[int, int] = {}
    for cpu in allowed:
        core = _read(root, cpu, "topology/thread_siblings_list") or str(cpu)
        rounds[cpu] = taken[core] = taken.get(core, 0) + 1
    return sorted(allowed, key=lambda cpu: (rounds[cpu], [-speed for speed in speeds[cpu]]))


def _speeds(cpus: Iterable[int], root: Path) -> dict[int, list[int]]:
    """Return the numbers that rank each CPU; one that is not known of all says nothing about any."""
    found: dict[int, list[int]] = {cpu: [] for cpu in cpus}
    for name in _SPEEDS:
        texts = {cpu: _read(root, cpu, name) for cpu in found}
        if all(text.isdecimal() for text in texts.values()):
            for cpu, text in texts.items():
                found[cpu].append(int(text))
    return found


def _read(root: Path, cpu: int, name: str) -> str:
    """Return the text of one file of a CPU, empty where there is none."""
    try:
        return (root / f"cpu{cpu}" / name).read_text(encoding="ascii").strip()
    except OSError:
        return ""
