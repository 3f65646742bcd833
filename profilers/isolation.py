"""Run the measuring thread where and how it is disturbed least, and put everything back afterwards."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from infra.errors import InvalidInputError
from profilers.topology import SYSFS
from profilers.topology import spread_order
from profilers.types import Workload


def default_affinity(threads: int, allowed: frozenset[int], root: Path = SYSFS) -> frozenset[int]:
    """Choose a fast core of its own for each thread, the last among equals: interrupts gather on the first.

    With as many threads as logical CPUs, or more, nothing is pinned (all allowed ones are returned).

    Args:
        threads: Threads of the workload.
        allowed: Logical CPUs that this process may use.
        root: Where the machine describes them (:func:`profilers.topology.spread_order`).
    """
    return frozenset(spread_order(allowed, root)[:threads]) if threads < len(allowed) else allowed


def affinity_option(options: dict[str, Any], allowed: frozenset[int]) -> frozenset[int] | None:
    """Read the device option ``affinity``: a list of core numbers.

    Raises:
        InvalidInputError: It is not a list of numbers, or names a core that this process may not use.
    """
    value = options.get("affinity")
    if value is None:
        return None
    if not isinstance(value, list) or not value or not all(type(core) is int for core in value):
        raise InvalidInputError(
            f"The device option 'affinity' must be a list of core numbers, not {value!r}.", hint="Example: [1]."
        )
    cores = frozenset(value)
    if not cores <= allowed:
        raise InvalidInputError(
            f"The device option 'affinity' names cores {sorted(cores - allowed)} that are not available.",
            hint=f"Available cores: {sorted(allowed)}.",
        )
    return cores


class Isolation:
    """Pins the calling thread, optionally with real-time priority; :meth:`release` restores both.

    Threads that are created afterwards (a runtime's pool) inherit the pinning, so take it before loading a model.

    Args:
        workload: Its ``threads`` give the number of cores.
        options: Device options ``affinity`` (list of cores) and ``realtime_priority`` (1 to 99; needs the privilege;
            takes precedence over ordinary processes on the same core).
        pinned: ``False`` leaves the thread as it is.

    Raises:
        InvalidInputError: An option has a wrong value.
    """

    def __init__(self, workload: Workload, options: dict[str, Any], *, pinned: bool = True) -> None:
        allowed = frozenset(os.sched_getaffinity(0))
        chosen = affinity_option(options, allowed) or default_affinity(workload.threads, allowed)
        self.cpus = chosen if pinned else allowed
        self.realtime = False
        self._previous_affinity: frozenset[int] | None = None
        self._previous_policy: tuple[int, os.sched_param] | None = None
        if pinned:
            self._previous_affinity = allowed
            os.sched_setaffinity(0, self.cpus)
            self._raise_priority(options.get("realtime_priority"))

    def _raise_priority(self, priority: Any) -> None:
        if priority is None:
            return
        if type(priority) is not int or not 1 <= priority <= 99:
            self.release()
            raise InvalidInputError(
                f"The device option 'realtime_priority' must be a number from 1 to 99, not {priority!r}.",
                hint="Leave it out to measure at normal priority.",
            )
        previous = (os.sched_getscheduler(0), os.sched_getparam(0))
        with suppress(PermissionError):  # measured at normal priority then; the facts say so
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
            self._previous_policy = previous
            self.realtime = True

    def release(self) -> None:
        """Restore affinity and priority. Safe to call twice."""
        if self._previous_policy is not None:
            os.sched_setscheduler(0, *self._previous_policy)
            self._previous_policy = None
        if self._previous_affinity is not None:
            os.sched_setaffinity(0, self._previous_affinity)
            self._previous_affinity = None

    def facts(self) -> dict[str, Any]:
        """Return what was done, as JSON types."""
        return {"affinity": sorted(self.cpus), "realtime": self.realtime}
