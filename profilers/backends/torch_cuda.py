"""PyTorch on an NVIDIA GPU, timed with CUDA events.

Two numbers can be had, by the device option ``mode``: ``graph`` (default) captures the model in a CUDA graph, which is
what the hardware can do; ``eager`` times single calls as plain PyTorch runs them, which for small encoders is mostly
the time to launch kernels, so that compression hardly shows.

The tests that are marked ``gpu``, the measurements of ``benchmarks.cuda_modes`` and a whole short job, with the warm-up
of the clocks, ran on an NVIDIA H200; a long search has not run there yet, nor has the count of foreign processes for
each block. The decisions are tested without a GPU.
"""

import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar
from typing import Self

import numpy as np

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from infra.errors import UnavailableError
from profilers.backends.cuda_rules import availability
from profilers.backends.cuda_rules import gpu_facts
from profilers.backends.cuda_rules import is_disturbed
from profilers.backends.cuda_rules import is_warm
from profilers.backends.cuda_rules import throttling
from profilers.backends.nvml import Nvml
from profilers.host import machine_facts
from profilers.options import reject_unknown_options
from profilers.protocol import API_VERSION
from profilers.protocol import BlockSamples
from profilers.protocol import Feeds
from profilers.protocol import Handle
from profilers.protocol import HasDeviceFacts
from profilers.protocol import Health
from profilers.protocol import Outputs
from profilers.protocol import Profiler
from profilers.protocol import Visit
from profilers.types import Artifact
from profilers.types import Capabilities
from profilers.types import DeviceProfile
from profilers.types import Workload

_OPTIONS = ("index", "mode", "cold_l2")
_CAPTURE_WARM_UP = 3
_CLOCKS_KEPT = 200
_CLOCK_INTERVAL_SECONDS = 0.5
"""Between two readings of the clock during the warm-up."""


class TorchCudaProfiler:
    """Plugin ``torch_cuda``."""

    api_version: ClassVar[int] = API_VERSION

    def describe(self) -> Capabilities:
        """int8 is not offered: on encoders of this size published int8 results on GPUs are slow-downs."""
        try:
            installed: str | None = version("torch")
        except PackageNotFoundError:
            installed = None
        available, reason = availability(installed, device_nodes=Path("/dev/nvidia0").exists())
        return Capabilities(
            profiler="torch_cuda",
            available=available,
            reason=reason,
            formats=("torch",),
            bits=(32,),
            precisions=("f32", "bf16"),
            schemes=(),
            objectives=("p50", "p90", "p99", "throughput"),  # resident memory of the host says nothing about the GPU's
            baselines=("fp32", "torch_bf16", "torch_fp16"),
        )

    def device_facts(self, device: DeviceProfile) -> dict[str, Any]:
        """Name the GPU, its memory and its driver (see :class:`profilers.protocol.HasDeviceFacts`)."""
        import torch

        properties = _gpu_properties(_index(device))
        nvml = Nvml(str(properties.uuid))
        try:
            return gpu_facts(properties, nvml.facts()["driver"], torch.version.cuda)
        finally:
            nvml.close()

    def open(
        self, device: DeviceProfile, workload: Workload, *, feeds: Feeds | None = None, pinned: bool = True
    ) -> "TorchCudaSession":
        """Open a session (see :class:`profilers.protocol.Profiler`); ``pinned`` has no meaning on a GPU."""
        capabilities = self.describe()
        if not capabilities.available:
            raise UnavailableError(capabilities.reason, hint="Use a CPU device, or repair the GPU set-up.")
        reject_unknown_options(device, _OPTIONS)
        mode = device.options.get("mode", "graph")
        if mode not in ("graph", "eager"):
            raise InvalidInputError(f"The device option 'mode' is {mode!r}.", hint="Use 'graph' or 'eager'.")
        return TorchCudaSession(device, workload, feeds)


def _index(device: DeviceProfile) -> int:
    index = device.options.get("index", 0)
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise InvalidInputError(
            f"The device option 'index' is {index!r}.", hint="Use the number of a GPU: 0 for the first."
        )
    return index


def _gpu_properties(index: int) -> Any:
    import torch

    try:
        return torch.cuda.get_device_properties(index)
    except (RuntimeError, AssertionError) as error:
        raise _unusable(index, error) from error


def _unusable(index: int, error: Exception) -> UnavailableError:
    hint = "Check nvidia-smi and the option 'index'."
    return UnavailableError(f"The GPU {index} cannot be used: {error}", hint=hint)


class TorchCudaSession:
    """One GPU, one stream.

    Raises:
        UnavailableError: The GPU cannot be initialised, or there is none with this index.
    """

    def __init__(self, device: DeviceProfile, workload: Workload, feeds: Feeds | None) -> None:
        import torch

        self._torch = torch
        self.device = device
        self.workload = workload
        self.feeds = feeds
        self.graphs = device.options.get("mode", "graph") == "graph"
        index = _index(device)
        properties = _gpu_properties(index)
        try:
            self._cuda = torch.device("cuda", index)
            cache_bytes = 2 * int(getattr(properties, "L2_cache_size", 0) or 50 << 20)
            cold = bool(device.options.get("cold_l2", False))
            self._flush = torch.empty(cache_bytes, dtype=torch.int8, device=self._cuda) if cold else None
            # From here on NVML lists this process too, under a number that a container does not know as its own.
            torch.empty(1, device=self._cuda)
        except RuntimeError as error:
            raise _unusable(index, error) from error
        self._properties = properties
        self._nvml = Nvml(str(properties.uuid))
        self._foreign = self._nvml.foreign_processes()
        self._clocks: list[int] = []
        self._warm = False

    def load(self, artifact: Artifact, *, static: bool = True) -> "TorchCudaHandle":
        """Load a torch folder or a ``.pt2`` file and move it to the GPU.

        Raises:
            InvalidModelError: It is missing, damaged, or of another format.
        """
        if artifact.format != "torch":
            raise InvalidModelError(
                f"PyTorch cannot open {artifact.path.name} ({artifact.format}).", hint="Export it as torch."
            )
        from profilers.backends.torch_module import TorchModel

        return TorchCudaHandle(self, TorchModel.read(artifact, self._cuda))

    def unload(self, handle: Handle) -> None:
        """Free the model's memory on the GPU."""
        if isinstance(handle, TorchCudaHandle):
            handle.release()
            self._torch.cuda.empty_cache()

    def sample(self, plan: Sequence[Visit]) -> BlockSamples:
        """Execute one block.

        Captured graphs are enqueued between events without waiting, and the block is synchronised once at its end;
        eager calls are timed on the host's clock, each with its own synchronisation.
        """
        if not self._warm:
            self._warm_up(plan)
        before = self._nvml.state()
        elapsed = self._execute(plan)
        after = self._nvml.state()
        usual = median(self._clocks) if self._clocks else None
        self._clocks += [state.sm_clock_mhz for state in (before, after) if state.sm_clock_mhz is not None]
        self._clocks = self._clocks[-_CLOCKS_KEPT:]
        zeros = np.zeros(len(plan), dtype=np.int64)
        disturbed = is_disturbed(before, after, usual, self._foreign)
        return BlockSamples(elapsed, zeros, zeros, zeros, 0, disturbed)

    def _execute(self, plan: Sequence[Visit]) -> "np.ndarray[Any, np.dtype[np.int64]]":
        with self._torch.inference_mode(), self._torch.cuda.device(self._cuda):
            return self._sample_graphs(plan) if self.graphs else self._sample_eager(plan)

    def _warm_up(self, plan: Sequence[Visit]) -> None:
        """Keep the GPU busy with the first block until its clocks have settled."""
        start = time.monotonic()
        clocks: list[int | None] = []
        while not is_warm(time.monotonic() - start, clocks):
            reading = time.monotonic() + _CLOCK_INTERVAL_SECONDS
            while True:
                self._execute(plan)
                if time.monotonic() >= reading:
                    break
            clocks.append(self._nvml.state().sm_clock_mhz)
        self._warm = True

    def health(self) -> Health:
        """Report throttling and foreign processes."""
        notes = [f"GPU clocks limited: {reason}" for reason in throttling(self._nvml.state().reasons)]
        others = self._nvml.foreign_processes()
        if others:
            notes.append(f"{others} other processes use the GPU.")
        return Health(notes=tuple(notes))

    def facts(self) -> dict[str, Any]:
        """Return the GPU, driver, versions and mode."""
        torch = self._torch
        measured = self._nvml.facts()
        return {
            **machine_facts(),
            **measured,
            **gpu_facts(self._properties, measured["driver"], torch.version.cuda),
            "profiler": self.device.profiler,
            "options": dict(self.device.options),
            "workload": self.workload.model_dump(),
            "runtime": "torch",
            "mode": "graph" if self.graphs else "eager",
            "cold_l2": self._flush is not None,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
        }

    def close(self) -> None:
        """Release NVML and the flush buffer."""
        self._nvml.close()
        self._flush = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _handle(self, visit: Visit) -> "TorchCudaHandle":
        if not isinstance(visit.handle, TorchCudaHandle):
            raise InvalidInputError("A handle of another runtime is in the plan.", hint="Give it its own session.")
        return visit.handle

    def _sample_graphs(self, plan: Sequence[Visit]) -> "np.ndarray[Any, np.dtype[np.int64]]":
        torch = self._torch
        graphs = [self._handle(visit).captured() for visit in plan]
        events = []
        for visit, graph in zip(plan, graphs, strict=True):
            for _ in range(visit.lead_in):
                graph.replay()
            pairs = []
            for _ in range(visit.runs):
                if self._flush is not None:
                    self._flush.zero_()
                pair = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
                pair[0].record()
                graph.replay()
                pair[1].record()
                pairs.append(pair)
            events.append(pairs)
        torch.cuda.synchronize(self._cuda)
        nanoseconds = [sum(start.elapsed_time(end) for start, end in pairs) * 1e6 for pairs in events]
        return np.array(nanoseconds).astype(np.int64)

    def _sample_eager(self, plan: Sequence[Visit]) -> "np.ndarray[Any, np.dtype[np.int64]]":
        elapsed = np.zeros(len(plan), dtype=np.int64)
        for index, visit in enumerate(plan):
            handle = self._handle(visit)
            for _ in range(visit.lead_in):
                handle.invoke()
            for _ in range(visit.runs):
                if self._flush is not None:
                    self._flush.zero_()
                self._torch.cuda.synchronize(self._cuda)
                start = time.perf_counter_ns()
                handle.invoke()
                self._torch.cuda.synchronize(self._cuda)
                elapsed[index] += time.perf_counter_ns() - start
        return elapsed


class TorchCudaHandle:
    """A model on the GPU with fixed inputs, captured on first use."""

    def __init__(self, session: TorchCudaSession, model: "TorchModel") -> None:
        self._session = session
        self._model: TorchModel | None = model
        self._inputs = model.inputs
        self._fixed: dict[str, Any] | None = None
        self._graph: Any = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return self._inputs

    def run(self, feeds: Feeds) -> Outputs:
        """Run eagerly on ``feeds``.

        Raises:
            InvalidInputError: An input is missing or of a wrong shape.
        """
        return self._loaded().run(feeds)

    def invoke(self) -> Any:
        """Run eagerly on the session's fixed inputs; does not wait for the GPU."""
        if self._fixed is None:
            self._fixed = self._loaded().fixed_inputs(self._session.feeds, self._session.workload)
        return self._loaded()(self._fixed)

    def captured(self) -> Any:
        """Return the CUDA graph of one run; captured after a few runs on a side stream, as CUDA requires."""
        if self._graph is None:
            import torch

            stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(_CAPTURE_WARM_UP):
                    self.invoke()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self.invoke()
            self._graph = graph
        return self._graph

    def operators(self) -> dict[str, int]:
        """Count the aten operators of one eager run."""
        return self._loaded().operators(self._session.workload, self._session.feeds)

    def facts(self) -> dict[str, Any]:
        """Return the model's arithmetic."""
        return dict(self._loaded().facts())

    def release(self) -> None:
        """Drop the model; the handle cannot run afterwards."""
        self._model = self._fixed = self._graph = None

    def _loaded(self) -> "TorchModel":
        if self._model is None:
            raise InvalidInputError("The model has been unloaded.", hint="Load the artifact again.")
        return self._model


if TYPE_CHECKING:
    from profilers.backends.torch_module import TorchModel

    _conforms: Profiler = TorchCudaProfiler()
    _has_facts: HasDeviceFacts = TorchCudaProfiler()
