"""OpenVINO on the CPU: reads ONNX or its own IR, computes in fp32 or bf16, and in int8 where the graph says so."""

from functools import cached_property
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar

import numpy as np

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from infra.errors import UnavailableError
from profilers.backends.openvino_layers import Layer
from profilers.backends.openvino_layers import Operators
from profilers.backends.openvino_layers import histogram
from profilers.backends.openvino_layers import products
from profilers.backends.openvino_layers import read_layers
from profilers.feeds import InputSpec
from profilers.feeds import matching_feeds
from profilers.feeds import synthetic_feeds
from profilers.in_process import InProcessHandle
from profilers.in_process import InProcessSession
from profilers.isa import this_cpu
from profilers.options import reject_unknown_options
from profilers.protocol import API_VERSION
from profilers.protocol import Feeds
from profilers.protocol import Handle
from profilers.protocol import Outputs
from profilers.protocol import Profiler
from profilers.types import Artifact
from profilers.types import Capabilities
from profilers.types import DeviceProfile
from profilers.types import Workload

_OPTIONS = ("affinity", "realtime_priority")
_PRECISION = "INFERENCE_PRECISION_HINT"
"""A property of each model: without it OpenVINO takes bf16 where the CPU has it."""


class OpenVinoProfiler:
    """Plugin ``openvino``."""

    api_version: ClassVar[int] = API_VERSION

    def describe(self) -> Capabilities:
        """bf16 is offered where the CPU is faster in it (:attr:`profilers.isa.Cpu.fast_bf16`)."""
        try:
            version("openvino")
        except PackageNotFoundError:
            return Capabilities(
                profiler="openvino",
                available=False,
                reason="OpenVINO is not installed: pip install 'paretune[openvino]'",
                formats=("onnx", "openvino_ir"),
            )
        cpu = this_cpu()
        baselines = ["fp32"]
        if cpu.fast_bf16:
            baselines.append("openvino_bf16")
        if find_spec("nncf") is not None:
            baselines.append("openvino_int8")
        return Capabilities(
            profiler="openvino",
            available=True,
            formats=("onnx", "openvino_ir"),
            bits=(32, 8) if cpu.fast_int8 else (32,),
            precisions=("f32", "bf16") if cpu.fast_bf16 else ("f32",),
            schemes=("static", "weight_only"),
            baselines=tuple(baselines),
        )

    def open(
        self, device: DeviceProfile, workload: Workload, *, feeds: Feeds | None = None, pinned: bool = True
    ) -> "OpenVinoSession":
        """Open a session (see :class:`profilers.protocol.Profiler`)."""
        capabilities = self.describe()
        if not capabilities.available:
            raise UnavailableError(capabilities.reason, hint="Install it, or choose another device.")
        reject_unknown_options(device, _OPTIONS)
        return OpenVinoSession(device, workload, feeds, pinned=pinned)


class OpenVinoSession(InProcessSession):
    """Compiles ONNX files and IR for the CPU, one stream, latency mode."""

    def __init__(self, device: DeviceProfile, workload: Workload, feeds: Feeds | None, *, pinned: bool) -> None:
        super().__init__(device, workload, feeds, pinned=pinned)
        import openvino

        self._core = openvino.Core()

    def load(self, artifact: Artifact, *, static: bool = True) -> "OpenVinoHandle":
        """Read and compile a model, at the workload's shape where ``static``.

        Raises:
            InvalidModelError: The file is missing, damaged, of another format, or cannot have the workload's shape, or
                bf16 is asked for on a CPU without it.
        """
        if artifact.format not in ("onnx", "openvino_ir"):
            raise InvalidModelError(
                f"OpenVINO cannot open {artifact.path.name} ({artifact.format}).", hint="Export it to ONNX."
            )
        if not artifact.path.is_file():
            raise InvalidModelError(f"There is no file {artifact.path}.", hint="Export the model again.")
        if artifact.precision == "bf16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            # OpenVINO would compute in fp32 and say nothing: a baseline of that name would not be one.
            raise InvalidModelError("This CPU does not compute in bf16.", hint="Ask for f32 on this machine.")
        try:
            model = self._core.read_model(str(artifact.path))
            specs = tuple(_spec(port) for port in model.inputs)
            operators = Operators.of(model)
            if static:
                model.reshape({spec.name: list(spec.shape(self.workload)) for spec in specs})
            compiled = self._core.compile_model(model, "CPU", self._properties() | {_PRECISION: artifact.precision})
        except RuntimeError as error:
            raise InvalidModelError(
                f"OpenVINO cannot load {artifact.path.name}: {_first_lines(error)}", hint="Export the model again."
            ) from error
        return OpenVinoHandle(artifact.path.name, compiled, specs, self.workload, self.feeds, operators)

    def unload(self, handle: Handle) -> None:
        """Free the compiled model."""
        if isinstance(handle, OpenVinoHandle):
            handle.release()

    def facts(self) -> dict[str, Any]:
        """Return the facts of the machine and the plugin properties."""
        return {**super().facts(), "runtime": "openvino", "properties": self._properties()}

    def _properties(self) -> dict[str, Any]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": self.workload.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # the session pins; OpenVINO would move the thread to the first core
        }


class OpenVinoHandle(InProcessHandle):
    """A compiled model with one inference request for evaluation and one with bound inputs for timing."""

    def __init__(
        self,
        name: str,
        compiled: Any,
        specs: tuple[InputSpec, ...],
        workload: Workload,
        feeds: Feeds | None,
        operators: Operators,
    ) -> None:
        self._name = name
        self._compiled = compiled
        self._specs = specs
        self._workload = workload
        self._feeds = feeds
        self._operators = operators
        self._request: Any = None
        self._timed: Any = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(spec.name for spec in self._specs)

    def run(self, feeds: Feeds) -> Outputs:
        """Run once on ``feeds``.

        Raises:
            InvalidInputError: An input is missing, or of another shape than the model was compiled for.
        """
        if self._request is None:
            self._request = self._compiled.create_infer_request()
        try:
            results = self._request.infer(matching_feeds(self._specs, feeds), share_inputs=True)
        except RuntimeError as error:
            raise InvalidInputError(
                f"OpenVINO failed on {self._name}: {_first_lines(error)}",
                hint="A model loaded for the workload runs at its shape only; load it with static=False for others.",
            ) from error
        return {port.get_any_name(): np.array(value) for port, value in results.items()}

    def invoke(self) -> None:
        """Run on the bound inputs, in the calling thread when there is one thread."""
        if self._timed is None:
            self._timed = self._bound_request()
        self._timed.infer(share_outputs=True)

    def operators(self) -> dict[str, int]:
        """Count the layers of the compiled graph by what they have fused; constants and inputs are left out.

        Raises:
            InvalidModelError: OpenVINO does not tell.
        """
        try:
            return histogram(self._layers)
        except RuntimeError as error:
            raise InvalidModelError(
                f"OpenVINO does not tell the layers of {self._name}: {_first_lines(error)}", hint="Do without them."
            ) from error

    def facts(self) -> dict[str, Any]:
        """Return the arithmetic that OpenVINO has taken, as it says itself.

        ``f32`` | ``bf16`` for floating point, and under ``products`` how many matrix products run in which arithmetic:
        a format that the graph asks for is not always one that the processor computes in.
        """
        precision = self._compiled.get_property(_PRECISION).get_type_name()
        try:
            return {_PRECISION: precision, "products": products(self._layers)}
        except RuntimeError:  # a fact less is no reason to lose a measurement
            return {_PRECISION: precision}

    @cached_property
    def _layers(self) -> list[Layer]:
        return read_layers(self._compiled, self._operators)

    def release(self) -> None:
        """Drop the model; the handle cannot run afterwards."""
        self._request = self._timed = self._compiled = None

    def _bound_request(self) -> Any:
        import openvino

        feeds = matching_feeds(self._specs, self._feeds or synthetic_feeds(self._specs, self._workload))
        request = self._compiled.create_infer_request()
        for name, value in feeds.items():
            request.set_tensor(name, openvino.Tensor(value, shared_memory=False))
        return request


def _spec(port: Any) -> InputSpec:
    dims = tuple(None if dim.is_dynamic else int(dim.get_length()) for dim in port.get_partial_shape())
    return InputSpec(port.get_any_name(), np.dtype(port.get_element_type().to_dtype()), dims)


def _first_lines(error: RuntimeError) -> str:
    """Return what OpenVINO says without its source locations, at most three lines."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join([line for line in lines if line and not line.startswith("Exception from")][:3])


if TYPE_CHECKING:
    _conforms: Profiler = OpenVinoProfiler()
