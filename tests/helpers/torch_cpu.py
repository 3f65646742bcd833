"""The GPU backend's models on a CPU: a profiler that opens torch artifacts only and runs everywhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from profilers import registry
from profilers.backends.torch_cuda import TorchCudaProfiler
from profilers.backends.torch_module import TorchModel
from profilers.in_process import InProcessHandle
from profilers.in_process import InProcessSession
from profilers.protocol import API_VERSION
from profilers.protocol import Feeds
from profilers.protocol import Handle
from profilers.protocol import Outputs
from profilers.types import Artifact
from profilers.types import Capabilities
from profilers.types import DeviceProfile
from profilers.types import Workload

NAME = "torch_cpu"


class TorchCpuProfiler:
    """Declares what the CUDA profiler declares, but for being available."""

    api_version = API_VERSION

    def describe(self) -> Capabilities:
        declared = TorchCudaProfiler().describe()
        return declared.model_copy(update={"profiler": NAME, "available": True, "reason": ""})

    def open(
        self, device: DeviceProfile, workload: Workload, *, feeds: Feeds | None = None, pinned: bool = True
    ) -> "TorchCpuSession":
        return TorchCpuSession(device, workload, feeds, pinned=pinned)


class TorchCpuSession(InProcessSession):
    def load(self, artifact: Artifact, *, static: bool = True) -> Handle:
        return TorchCpuHandle(TorchModel.read(artifact, torch.device("cpu")), self)

    def unload(self, handle: Handle) -> None:
        pass


class TorchCpuHandle(InProcessHandle):
    def __init__(self, model: TorchModel, session: TorchCpuSession) -> None:
        self._model, self._session = model, session
        self._fixed = model.fixed_inputs(session.feeds, session.workload)

    @property
    def inputs(self) -> tuple[str, ...]:
        return self._model.inputs

    def run(self, feeds: Feeds) -> Outputs:
        return self._model.run(feeds)

    def facts(self) -> dict[str, Any]:
        return dict(self._model.facts())

    def invoke(self) -> Any:
        with torch.inference_mode():
            return self._model(self._fixed)

    def operators(self) -> dict[str, int]:
        return self._model.operators(self._session.workload, self._session.feeds)


@contextmanager
def registered() -> Iterator[str]:
    """Make the profiler known under the name that is returned."""
    registry._BUILT_IN[NAME] = f"{__name__}:{TorchCpuProfiler.__name__}"
    try:
        yield NAME
    finally:
        del registry._BUILT_IN[NAME]
        registry.get_profiler.cache_clear()
