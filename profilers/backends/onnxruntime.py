"""ONNX Runtime on the CPU.

The session options are the defaults, except for what makes timing honest (the number of threads and no spinning),
because users open the file with default options.
"""

import tempfile
from collections import Counter
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
from typing import ClassVar

import numpy as np

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from infra.errors import UnavailableError
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
_PROVIDERS = ["CPUExecutionProvider"]
_DTYPES = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
}


class OnnxRuntimeProfiler:
    """Plugin ``onnxruntime``."""

    api_version: ClassVar[int] = API_VERSION

    def describe(self) -> Capabilities:
        """Floating point is fp32 only: the CPU provider has no bf16 kernels.

        int8 is offered on every CPU: VNNI and AMX make it several times as fast as fp32, and AVX2 alone about 1.7
        times on a Zen 3 (``benchmarks.graph_recipes``). Without VNNI sums of products saturate, which 7-bit weights
        avoid: a product of [128, 384] and [384, 384] random full-range values had 99.9 % of its sums wrong there.
        """
        try:
            version("onnxruntime")
        except PackageNotFoundError:
            return Capabilities(
                profiler="onnxruntime", available=False, reason="onnxruntime is not installed: pip install onnxruntime"
            )
        return Capabilities(
            profiler="onnxruntime",
            available=True,
            formats=("onnx",),
            bits=(32, 8, 4),
            saturating_int8=this_cpu().saturating_int8,
            precisions=("f32",),
            schemes=("dynamic", "static", "weight_only"),
            baselines=("fp32", "int8_one_liner", "int8_static"),
        )

    def open(
        self, device: DeviceProfile, workload: Workload, *, feeds: Feeds | None = None, pinned: bool = True
    ) -> "OnnxRuntimeSession":
        """Open a session (see :class:`profilers.protocol.Profiler`)."""
        capabilities = self.describe()
        if not capabilities.available:
            raise UnavailableError(capabilities.reason, hint="Install it, or choose another device.")
        reject_unknown_options(device, _OPTIONS)
        return OnnxRuntimeSession(device, workload, feeds, pinned=pinned)


class OnnxRuntimeSession(InProcessSession):
    """Loads ``.onnx`` files."""

    def __init__(self, device: DeviceProfile, workload: Workload, feeds: Feeds | None, *, pinned: bool) -> None:
        super().__init__(device, workload, feeds, pinned=pinned)
        import onnxruntime  # noqa: F401  # here, so that its own memory is not taken for that of the first model

    def load(self, artifact: Artifact, *, static: bool = True) -> "OnnxRuntimeHandle":
        """Create an inference session; shapes stay dynamic, whatever ``static`` says, as they do for users.

        Raises:
            InvalidModelError: The file is missing, damaged, of another format, or uses what the provider lacks.
        """
        if artifact.format != "onnx":
            raise InvalidModelError(
                f"ONNX Runtime cannot open {artifact.path.name} ({artifact.format}).", hint="Export it to ONNX."
            )
        if artifact.precision != "f32":
            raise InvalidModelError(
                "ONNX Runtime's CPU provider has no bf16 arithmetic.",
                hint="Use precision f32, or OpenVINO.",
            )
        session = _open_model(artifact.path, _options(self.workload.threads))
        return OnnxRuntimeHandle(artifact.path, session, self.workload, self.feeds)

    def unload(self, handle: Handle) -> None:
        """Free the inference session."""
        if isinstance(handle, OnnxRuntimeHandle):
            handle.release()

    def facts(self) -> dict[str, Any]:
        """Return the facts of the machine and the session options that differ from the defaults."""
        return {
            **super().facts(),
            "runtime": "onnxruntime",
            "provider": _PROVIDERS[0],
            "session_options": {
                "intra_op_num_threads": self.workload.threads,
                "execution_mode": "ORT_SEQUENTIAL",
                "session.intra_op.allow_spinning": "0",
                "graph_optimization_level": "ORT_ENABLE_ALL",
            },
            "io_binding": True,
        }


class OnnxRuntimeHandle(InProcessHandle):
    """One inference session with its inputs bound.

    Inputs are bound as preallocated values and outputs to buffers of the runtime that it reuses, so that the timed
    call allocates and copies nothing.
    """

    def __init__(self, path: Path, session: Any, workload: Workload, feeds: Feeds | None) -> None:
        self._path = path
        self._threads = workload.threads
        self._session = session
        self._specs = tuple(_spec(value) for value in session.get_inputs())
        self._outputs = tuple(value.name for value in session.get_outputs())
        self._workload = workload
        self._feeds = feeds
        self._binding: Any = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return tuple(spec.name for spec in self._specs)

    def run(self, feeds: Feeds) -> Outputs:
        """Run once on ``feeds``.

        Raises:
            InvalidInputError: An input is missing or of a wrong shape.
        """
        try:
            values = self._session.run(list(self._outputs), matching_feeds(self._specs, feeds))
        except _runtime_errors() as error:
            raise InvalidInputError(
                f"ONNX Runtime failed on {self._path.name}: {error}", hint="Check the shapes of the inputs."
            ) from error
        return dict(zip(self._outputs, values, strict=True))

    def invoke(self) -> None:
        """Run on the bound inputs."""
        self._session.run_with_iobinding(self._bound())

    def operators(self) -> dict[str, int]:
        """Load once more, let the runtime write its optimised graph, and count the operators (subgraphs included)."""
        import onnx

        with tempfile.TemporaryDirectory(prefix="paretune-graph-") as directory:
            options = _options(self._threads)
            options.optimized_model_filepath = str(Path(directory) / "optimized.onnx")
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "weights")
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")
            options.log_severity_level = 3  # it warns that the file is specific to this machine: it is for us only
            _open_model(self._path, options)
            model = onnx.load(options.optimized_model_filepath, load_external_data=False)
        return dict(sorted(_count_operators(model.graph).items()))

    def release(self) -> None:
        """Drop the session; the handle cannot run afterwards."""
        self._binding = None
        self._session = None

    def _bound(self) -> Any:
        if self._binding is None:
            feeds = matching_feeds(self._specs, self._feeds or synthetic_feeds(self._specs, self._workload))
            self._binding = self._session.io_binding()
            for name, value in feeds.items():
                self._binding.bind_cpu_input(name, value)
            for name in self._outputs:
                self._binding.bind_output(name)
        return self._binding


def _options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _open_model(path: Path, options: Any) -> Any:
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)
    except _runtime_errors() as error:
        raise InvalidModelError(
            f"ONNX Runtime cannot load {path.name}: {error}",
            hint="Check it with onnx.checker, or export it again.",
        ) from error


def _runtime_errors() -> tuple[type[Exception], ...]:
    """Return every exception that the runtime's binding raises; they have no common class but ``Exception``."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("EPFail", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented")
    own = tuple(getattr(state, name) for name in (*names, "RuntimeException"))
    return (*own, RuntimeError, ValueError)


def _spec(value: Any) -> InputSpec:
    dtype = _DTYPES.get(value.type)
    if dtype is None:
        raise InvalidModelError(
            f"The input {value.name!r} has the unsupported type {value.type}.", hint="Use int64 or float inputs."
        )
    dims = tuple(dim if isinstance(dim, int) else None for dim in value.shape)
    return InputSpec(value.name, np.dtype(dtype), dims)


def _count_operators(graph: Any) -> Counter[str]:
    count: Counter[str] = Counter()
    for node in graph.node:
        count[node.op_type] += 1
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                count += _count_operators(subgraph)
    return count


if TYPE_CHECKING:
    _conforms: Profiler = OnnxRuntimeProfiler()
