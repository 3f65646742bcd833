"""Read the torch forms of a compressed model and call them by input name; works on any torch device."""

import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export.passes import move_to_device_pass
from torch.utils._python_dispatch import TorchDispatchMode

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from profilers.feeds import InputSpec
from profilers.feeds import matching_feeds
from profilers.feeds import synthetic_feeds
from profilers.protocol import Feeds
from profilers.protocol import Outputs
from profilers.types import Artifact
from profilers.types import Workload

_INT64 = np.dtype(np.int64)


class TorchModel:
    """A module whose inputs are int64 ``[batch, sequence]`` tensors.

    Args:
        function: The module.
        inputs: Names of its inputs, in the order of its arguments.
        device: Where it runs.
        dtype: Its arithmetic.
    """

    def __init__(
        self,
        function: Callable[..., torch.Tensor],
        inputs: tuple[str, ...],
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._function = function
        self.inputs = inputs
        self.dtype = dtype
        self._device = device
        self._specs = tuple(InputSpec(name, _INT64, (None, None)) for name in inputs)

    @classmethod
    def read(cls, artifact: Artifact, device: torch.device) -> "TorchModel":
        """Load a folder with ``structure.json`` and ``model.safetensors``, or a ``.pt2`` file.

        Raises:
            InvalidModelError: It is missing or damaged, or a ``.pt2`` file is asked to run in bf16.
        """
        if artifact.path.suffix == ".pt2":
            return cls._read_program(artifact, device)
        from paretune.artifact import load

        try:
            module = load(artifact.path)
        except (OSError, ValueError) as error:
            raise InvalidModelError(
                f"The torch model {artifact.path.name} cannot be loaded: {error}", hint="Export the model again."
            ) from error
        dtype = torch.bfloat16 if artifact.precision == "bf16" else torch.float32
        inputs = tuple(inspect.signature(module.forward).parameters)
        return cls(module.to(device=device, dtype=dtype).eval(), inputs, device, dtype)

    @classmethod
    def _read_program(cls, artifact: Artifact, device: torch.device) -> "TorchModel":
        if artifact.precision != "f32":
            raise InvalidModelError(
                "A .pt2 file has its precision built in.", hint="Use the folder with model.safetensors for bf16."
            )
        if not Path(artifact.path).is_file():
            raise InvalidModelError(f"There is no file {artifact.path}.", hint="Export the model again.")
        try:
            program = torch.export.load(artifact.path)
        except Exception as error:  # a damaged archive raises anything from zip, json and torch
            raise InvalidModelError(
                f"The program {artifact.path.name} cannot be loaded: {error}", hint="Export the model again."
            ) from error
        names = tuple(name for name in program.graph_signature.user_inputs if isinstance(name, str))
        # Tensors that the traced code makes itself are on the device that it was traced on, unless they are moved too.
        dtype = next(iter(program.parameters())).dtype
        return cls(move_to_device_pass(program, device).module(), names, device, dtype)

    def facts(self) -> dict[str, str]:
        """Return the arithmetic, such as ``{"dtype": "bfloat16"}``."""
        return {"dtype": str(self.dtype).removeprefix("torch.")}

    def __call__(self, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
        """Run on tensors that lie on the device."""
        return self._function(*(inputs[name] for name in self.inputs))

    def run(self, feeds: Feeds) -> Outputs:
        """Run on arrays and return the output as float32; its name follows from its meaning to the caller.

        Raises:
            InvalidInputError: An input is missing or of a wrong shape.
        """
        try:
            with torch.inference_mode():
                output = self(self._tensors(matching_feeds(self._specs, feeds)))
        except (RuntimeError, IndexError) as error:
            raise InvalidInputError(f"The model failed: {error}", hint="Check the shapes of the inputs.") from error
        return {"output": output.float().cpu().numpy()}

    def fixed_inputs(self, feeds: Feeds | None, workload: Workload) -> dict[str, torch.Tensor]:
        """Return the inputs of the timed runs on the device."""
        chosen = feeds if feeds is not None else synthetic_feeds(self._specs, workload)
        return self._tensors(matching_feeds(self._specs, chosen))

    def operators(self, workload: Workload, feeds: Feeds | None) -> dict[str, int]:
        """Count the aten operators that one run dispatches; views are left out."""
        with torch.inference_mode(), _OperatorCounter() as counter:
            self(self.fixed_inputs(feeds, workload))
        return dict(sorted(counter.counts.items()))

    def _tensors(self, feeds: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(value).to(self._device) for name, value in feeds.items()}


class _OperatorCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))
