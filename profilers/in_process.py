"""What sessions that run models inside this process have in common: pinning, the timed loop, counters, facts."""

import gc
import os
import resource
import threading
import time
from abc import ABC
from abc import abstractmethod
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any
from typing import Self

import numpy as np

from infra.errors import InvalidInputError
from profilers.counters import SchedulerProbe
from profilers.counters import pressure_us
from profilers.counters import stolen_ns
from profilers.host import machine_facts
from profilers.isolation import Isolation
from profilers.protocol import BlockSamples
from profilers.protocol import Feeds
from profilers.protocol import Handle
from profilers.protocol import Health
from profilers.protocol import Outputs
from profilers.protocol import Visit
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Workload

_SPIN_STEPS = 50_000


class InProcessHandle(ABC):
    """A handle whose model is executed by a function call in this process."""

    @property
    @abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs."""

    @abstractmethod
    def run(self, feeds: Feeds) -> Outputs:
        """Run once on ``feeds`` and return copies of the outputs."""

    @abstractmethod
    def operators(self) -> dict[str, int]:
        """Histogram of the executed operators."""

    def facts(self) -> dict[str, Any]:
        """What holds for this model only; by default nothing."""
        return {}

    @abstractmethod
    def invoke(self) -> object:
        """Run once on the session's fixed inputs and leave the outputs where they are: this is what is timed."""


class InProcessSession(ABC):
    """A session that times calls in this process.

    Handles of *different* in-process sessions may stand in one plan: so two runtimes are compared in the same blocks.

    Args:
        device: The profile; options ``affinity`` and ``realtime_priority`` are read here.
        workload: Shape and threads.
        feeds: Fixed inputs, or ``None`` for synthetic ones.
        pinned: Whether to pin the calling thread.
    """

    def __init__(self, device: DeviceProfile, workload: Workload, feeds: Feeds | None, *, pinned: bool) -> None:
        self.device = device
        self.workload = workload
        self.feeds = feeds
        self._isolation = Isolation(workload, device.options, pinned=pinned)
        self._owner = threading.get_ident()

    @abstractmethod
    def load(self, artifact: Artifact, *, static: bool = True) -> Handle:
        """Load an artifact (see :class:`profilers.protocol.Session`)."""

    @abstractmethod
    def unload(self, handle: Handle) -> None:
        """Free a handle."""

    def sample(self, plan: Sequence[Visit]) -> BlockSamples:
        """Execute one block with the garbage collector off; counters are read outside of the timed calls.

        Raises:
            InvalidInputError: A handle of the plan does not run in this process.
        """
        calls = [_invocation(visit.handle) for visit in plan]
        several = self.workload.threads > 1
        cpu_clock = time.process_time_ns if several else time.thread_time_ns
        rows = np.empty((4, len(plan)), dtype=np.int64)
        with SchedulerProbe(all_threads=several) as probe, _garbage_collector_off():
            stolen = stolen_ns(self._isolation.cpus)
            for index, (call, visit) in enumerate(zip(calls, plan, strict=True)):
                for _ in range(visit.lead_in):
                    call()
                before = probe.read()
                cpu = cpu_clock()
                start = time.perf_counter_ns()
                for _ in range(visit.runs):
                    call()
                elapsed = time.perf_counter_ns() - start
                cpu = cpu_clock() - cpu
                after = probe.read()
                rows[:, index] = elapsed, cpu, after.waited_ns - before.waited_ns, after.preempted - before.preempted
            stolen = stolen_ns(self._isolation.cpus) - stolen
        return BlockSamples(rows[0], rows[1], rows[2], rows[3], stolen)

    def health(self) -> Health:
        """Measure the frequency proxy and read steal and pressure."""
        return Health(
            spin_ns=_spin_ns(), pressure_us=pressure_us(), stolen_ms=stolen_ns(self._isolation.cpus) / 1_000_000
        )

    def facts(self) -> dict[str, Any]:
        """Return machine, device profile, workload and isolation."""
        return {
            **machine_facts(),
            **self._isolation.facts(),
            "profiler": self.device.profiler,
            "options": dict(self.device.options),
            "workload": self.workload.model_dump(),
            "load_average": round(os.getloadavg()[0], 2),
            "max_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }

    def close(self) -> None:
        """Undo the pinning; only the thread that opened the session can."""
        if threading.get_ident() == self._owner:
            self._isolation.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _invocation(handle: Handle) -> Callable[[], object]:
    if not isinstance(handle, InProcessHandle):
        raise InvalidInputError(
            f"A handle of type {type(handle).__name__} does not run in this process.",
            hint="Measure it in a session of its own.",
        )
    return handle.invoke


@contextmanager
def _garbage_collector_off() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _spin_ns() -> int:
    """Time a fixed amount of scalar arithmetic (about 2 ms): rises when the clock falls."""
    value = 1.0
    start = time.perf_counter_ns()
    for _ in range(_SPIN_STEPS):
        value = value * 0.999 + 0.001
    return time.perf_counter_ns() - start
