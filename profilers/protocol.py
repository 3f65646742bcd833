"""What a profiler plugin must implement.

The core (:mod:`profilers.measure`) owns warm-up, order, stopping and statistics. A plugin loads artifacts and executes
an ordered plan; it returns raw samples and never a summary. A plugin is found by the entry-point group
``paretune.profilers``; :mod:`profilers.conformance` is the kit that it must pass.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import ClassVar
from typing import Protocol
from typing import Self
from typing import runtime_checkable

import numpy as np
from numpy.typing import NDArray

from profilers.types import Artifact
from profilers.types import Capabilities
from profilers.types import DeviceProfile
from profilers.types import Workload

API_VERSION = 1
"""Version of this protocol; a plugin of another version is refused."""

Feeds = Mapping[str, NDArray[Any]]
"""Model inputs by name."""
Outputs = dict[str, NDArray[Any]]
"""Model outputs by name."""


class Handle(Protocol):
    """An artifact that is loaded and ready to run."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the model's inputs."""
        ...

    def run(self, feeds: Feeds) -> Outputs:
        """Run once and return copies of the outputs.

        Feeds whose names the model does not have are ignored, so that one set of feeds serves all artifacts.

        Raises:
            InvalidInputError: An input is missing, or the shapes do not fit the way the artifact was loaded.
        """
        ...

    def operators(self) -> dict[str, int]:
        """Histogram of the operators in the graph that the runtime really executes, fused ones included."""
        ...

    def facts(self) -> dict[str, Any]:
        """What holds for this model and not for the session, such as the arithmetic that it is run in. JSON types."""
        ...


@dataclass(frozen=True)
class Visit:
    """Consecutive executions of one handle on the session's fixed inputs.

    Attributes:
        handle: What is run.
        runs: Timed executions.
        lead_in: Executions before them that are not timed: they bring the model's own weights back into the caches
            that the previous model has filled with its own.
    """

    handle: Handle
    runs: int = 1
    lead_in: int = 0


@dataclass(frozen=True)
class BlockSamples:
    """Raw samples of one block: arrays of shape ``[visits]``, in the order of the plan.

    Attributes:
        elapsed_ns: wall-clock time of the timed runs of the visit.
        cpu_ns: CPU time of the measuring thread (of the process, with more than one thread); 0 where unknown.
        waited_ns: time that a runnable thread of ours waited for a core; 0 where unknown.
        preempted: involuntary context switches during the timed runs.
        stolen_ns: time that the hypervisor took away during the block (a scalar: its resolution is a clock tick).
        disturbed: the device says that the block cannot be used (throttled, clocks dropped, foreign process).
    """

    elapsed_ns: NDArray[np.int64]
    cpu_ns: NDArray[np.int64]
    waited_ns: NDArray[np.int64]
    preempted: NDArray[np.int64]
    stolen_ns: int = 0
    disturbed: bool = False


@dataclass(frozen=True)
class Health:
    """State of the device between blocks.

    Attributes:
        spin_ns: time of a fixed amount of arithmetic: a stand-in for the clock frequency; ``None`` where unknown.
        pressure_us: total microseconds in which some task on the machine waited for a core (PSI); ``None``: unknown.
        stolen_ms: total milliseconds of steal on the measured cores; ``None``: unknown.
        notes: anything that the device reports, such as throttling reasons.
    """

    spin_ns: int | None = None
    pressure_us: int | None = None
    stolen_ms: float | None = None
    notes: tuple[str, ...] = field(default_factory=tuple)


@runtime_checkable
class Session(Protocol):
    """Exclusive use of one device for one workload. Use it as a context manager."""

    def load(self, artifact: Artifact, *, static: bool = True) -> Handle:
        """Load (and where the runtime wants it: compile) an artifact.

        Args:
            artifact: What to load.
            static: Fix the shapes to the workload where the runtime gains from it. A handle that was loaded with
                ``static=False`` runs at any shape.

        Raises:
            InvalidModelError: The file is missing, damaged, or not of a format that the device runs.
        """
        ...

    def unload(self, handle: Handle) -> None:
        """Free a handle's memory; it must not be used afterwards."""
        ...

    def sample(self, plan: Sequence[Visit]) -> BlockSamples:
        """Execute the visits in the given order on the session's inputs and return the raw samples."""
        ...

    def health(self) -> Health:
        """Look at the state of the device; cheap enough to call every few blocks."""
        ...

    def facts(self) -> dict[str, Any]:
        """Everything that a number is taken under: hardware, runtime, versions, threads, affinity. JSON types."""
        ...

    def close(self) -> None:
        """Release the device and undo what opening changed (affinity, priority). Safe to call twice."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exception: object) -> None: ...


@runtime_checkable
class Profiler(Protocol):
    """A kind of device. Instances hold no state; constructing one imports no runtime."""

    api_version: ClassVar[int]

    def describe(self) -> Capabilities:
        """Say what the device can run and gain from. Cheap: must not import the runtime or touch the device."""
        ...

    def open(
        self, device: DeviceProfile, workload: Workload, *, feeds: Feeds | None = None, pinned: bool = True
    ) -> Session:
        """Open the device.

        Args:
            device: Its registered profile; ``options`` are the plugin's own.
            workload: Shape and threads that everything in the session runs with.
            feeds: Inputs for the timed runs, at the workload's shape; by default synthetic ones that are the same
                for every artifact.
            pinned: Pin the calling thread for undisturbed timing; ``False`` for evaluation.

        Raises:
            UnavailableError: The runtime or the device is not there.
            InvalidInputError: An option is unknown or has a wrong value.
        """
        ...


@runtime_checkable
class HasDeviceFacts(Protocol):
    """What a :class:`Profiler` has as well where a device is more than the host that it is called from."""

    def device_facts(self, device: DeviceProfile) -> dict[str, Any]:
        """Say which device it is, such as the model, memory and driver of a GPU. JSON types that stay the same.

        Called where :meth:`Profiler.describe` finds the runtime, in a process of its own: it may import the runtime.

        Raises:
            UnavailableError: The device with these options is not there.
            InvalidInputError: An option has a wrong value.
        """
        ...
