"""Kernel counters that tell whether somebody else used our cores while we measured.

All of them are cumulative; callers subtract. A counter that the platform does not have reads as 0.
"""

import os
import resource
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import NamedTuple
from typing import Self

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_STEAL_FIELD = 8


class ThreadCounters(NamedTuple):
    """Cumulative counters of the measuring threads."""

    waited_ns: int
    """Time runnable but without a core (``schedstat``, second field)."""
    preempted: int
    """Involuntary context switches."""


class SchedulerProbe:
    """Reads the counters of the calling thread, or of every thread of the process.

    Args:
        all_threads: With a runtime that computes in its own threads, all threads must be watched.
    """

    def __init__(self, *, all_threads: bool) -> None:
        self._who = resource.RUSAGE_SELF if all_threads else resource.RUSAGE_THREAD
        paths = (
            list(Path("/proc/self/task").glob("*/schedstat")) if all_threads else [Path("/proc/thread-self/schedstat")]
        )
        self._files: list[int] = []
        for path in paths:
            with suppress(OSError):
                self._files.append(os.open(path, os.O_RDONLY))

    def read(self) -> ThreadCounters:
        """Return the counters now. Costs a few microseconds for each watched thread."""
        waited = 0
        for file in self._files:
            with suppress(OSError, IndexError, ValueError):  # the thread has ended
                waited += int(os.pread(file, 96, 0).split()[1])
        return ThreadCounters(waited, resource.getrusage(self._who).ru_nivcsw)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)
        self._files = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def parse_steal_ticks(text: str, cpus: frozenset[int]) -> int:
    """Sum the steal column of ``/proc/stat`` over ``cpus``, in clock ticks."""
    total = 0
    for line in text.splitlines():
        fields = line.split()
        if not fields or not fields[0].startswith("cpu"):
            break
        number = fields[0][3:]
        if number.isdigit() and int(number) in cpus and len(fields) > _STEAL_FIELD:
            total += int(fields[_STEAL_FIELD])
    return total


def stolen_ns(cpus: frozenset[int]) -> int:
    """Return the time that the hypervisor has taken from ``cpus`` since boot; resolution: one clock tick."""
    try:
        with open("/proc/stat", encoding="ascii") as file:  # noqa: PTH123 - called in every block
            return parse_steal_ticks(file.read(), cpus) * _TICK_NS
    except OSError:
        return 0


def pressure_us() -> int | None:
    """Return PSI ``some total`` for the CPU: microseconds in which at least one task waited; ``None`` without PSI."""
    try:
        first = Path("/proc/pressure/cpu").read_text(encoding="ascii").splitlines()[0]
    except (OSError, IndexError):
        return None
    return int(first.rpartition("total=")[2])
