"""What the dense model says about the training texts: computed once and kept, or computed for every batch."""

import json
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from compressors.network import EncoderNetwork
from compressors.recovery.data import Batch
from compressors.recovery.data import TrainingData
from compressors.recovery.data import sequential_batches
from compressors.recovery.states import forward_with_states
from compressors.torch_module import to_module
from infra.errors import CancelledError
from infra.errors import InvalidInputError

_STATE_TYPE = torch.float16
"""States follow a LayerNorm, so their range is small; half precision keeps more of their digits than bf16."""


@dataclass(frozen=True)
class Targets:
    """The dense model's answers to one batch, float32."""

    output: Tensor
    """Logits ``[B, labels]`` or embeddings ``[B, D]``."""
    states: dict[int, Tensor]
    """Output of the dense layers that were asked for, by their index, ``[B, S, D]``."""


class Teacher(Protocol):
    """Source of targets."""

    layers: int
    """Number of layers of the dense model."""
    state_layers: tuple[int, ...]
    """Indices of the layers whose states it can give."""

    def targets(self, batch: Batch) -> Targets:
        """Return the targets for a batch."""
        ...


class LiveTeacher:
    """Runs the dense model on every batch. For texts that are seen once."""

    def __init__(self, network: EncoderNetwork, state_layers: Sequence[int] = ()) -> None:
        self._module = to_module(network, share=True)
        self.layers = len(network.layers)
        self.state_layers = tuple(state_layers)

    @torch.no_grad()
    def targets(self, batch: Batch) -> Targets:
        """Run the model on the batch."""
        shorten = self.layers - 1 not in self.state_layers
        return Targets(*forward_with_states(self._module, batch, self.state_layers, shorten=shorten))


class TeacherCache:
    """The dense model's outputs for a data set, addressed by the position of the text in it.

    Build it once with :meth:`build` and give it to as many recoveries as there are candidates. With a ``path`` the
    content lives in one memory-mapped safetensors file, so that states of a large data set do not have to fit in
    memory.
    """

    def __init__(self, layers: int, digest: str, tensors: dict[str, Tensor]) -> None:
        self.layers = layers
        self.digest = digest
        self.state_layers = tuple(int(name.split(".")[1]) for name in sorted(tensors) if name.startswith("states."))
        self._tensors = tensors
        self._starts = torch.cat([torch.zeros(1, dtype=torch.int64), tensors["lengths"].cumsum(0)[:-1]])

    @classmethod
    def build(
        cls,
        network: EncoderNetwork,
        data: TrainingData,
        *,
        state_layers: Sequence[int] = (),
        path: Path | None = None,
        batch_size: int = 32,
        on_progress: Callable[[float], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> "TeacherCache":
        """Run the dense model over the data.

        Args:
            network: the dense model.
            data: the very texts (truncated and augmented) that will be trained on.
            state_layers: indices of layers whose token states are kept too, in half precision.
            path: safetensors file to write; ``None``: keep everything in memory.
            batch_size: texts for each forward pass.
            on_progress: called with the fraction that is done.
            should_stop: polled after every batch.

        Raises:
            CancelledError: ``should_stop`` returned true; nothing is left at ``path``.
        """
        live = LiveTeacher(network, state_layers)
        lengths = torch.tensor([len(row) for row in data.input_ids])
        tokens, width = int(lengths.sum()), network.hidden_size
        outputs = int(live.targets(next(sequential_batches(data, 1))).output.shape[1])
        shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
            "lengths": (torch.int64, (len(data),)),
            "output": (torch.float32, (len(data), outputs)),
            **{f"states.{layer}": (_STATE_TYPE, (tokens, width)) for layer in state_layers},
        }
        temporary = None if path is None else path.with_name(path.name + ".partial")
        metadata = {"layers": str(live.layers), "digest": data.digest}
        tensors = _allocate(temporary, shapes, metadata)
        tensors["lengths"].copy_(lengths)
        cache = cls(live.layers, data.digest, tensors)
        done = 0
        for batch in sequential_batches(data, batch_size):
            if should_stop is not None and should_stop():
                if temporary is not None:
                    temporary.unlink(missing_ok=True)
                raise CancelledError("The teacher's outputs were not finished.", hint="Start the recovery again.")
            cache._store(batch, live.targets(batch))
            done += len(batch.indices)
            if on_progress is not None:
                on_progress(done / len(data))
        if path is None or temporary is None:
            return cache
        del cache, tensors  # flushes the mapping
        temporary.replace(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "TeacherCache":
        """Map a file that :meth:`build` wrote. Nothing is read before it is needed."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return cls(int(metadata["layers"]), metadata["digest"], tensors)

    def check(self, data: TrainingData) -> None:
        """Refuse data that the cache was not built for.

        Raises:
            InvalidInputError: the texts differ.
        """
        if data.digest != self.digest:
            raise InvalidInputError(
                "The cached teacher outputs belong to other texts.",
                hint="Build the cache from the same prepared data that is given to recover().",
            )

    def targets(self, batch: Batch) -> Targets:
        """Look the batch up by its ``indices``."""
        width = batch.input_ids.shape[1]
        states = {layer: self._gather(f"states.{layer}", batch.indices, width) for layer in self.state_layers}
        return Targets(self._tensors["output"][batch.indices], states)

    def _store(self, batch: Batch, targets: Targets) -> None:
        self._tensors["output"][batch.indices] = targets.output
        for layer, states in targets.states.items():
            for row, index in enumerate(batch.indices.tolist()):
                start, length = int(self._starts[index]), int(self._tensors["lengths"][index])
                self._tensors[f"states.{layer}"][start : start + length] = states[row, :length].to(_STATE_TYPE)

    def _gather(self, name: str, indices: Tensor, width: int) -> Tensor:
        """[batch, width, D], zero where there is no token."""
        source = self._tensors[name]
        result = torch.zeros(len(indices), width, source.shape[1])
        for row, index in enumerate(indices.tolist()):
            start, length = int(self._starts[index]), int(self._tensors["lengths"][index])
            result[row, :length] = source[start : start + length]
        return result


_SAFETENSORS_NAME = {torch.int64: "I64", torch.float32: "F32", torch.float16: "F16"}


def _allocate(
    path: Path | None, shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]], metadata: dict[str, str]
) -> dict[str, Tensor]:
    """Return empty tensors: in memory, or mapped onto a new safetensors file that they fill as they are written."""
    if path is None:
        return {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape) in shapes.items()}
    sizes = {name: dtype.itemsize * torch.Size(shape).numel() for name, (dtype, shape) in shapes.items()}
    entries: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name, (dtype, shape) in shapes.items():
        entries[name] = {
            "dtype": _SAFETENSORS_NAME[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + sizes[name]],
        }
        offset += sizes[name]
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + offset)
    whole = torch.from_file(str(path), shared=True, size=8 + len(header) + offset, dtype=torch.uint8)
    tensors, start = {}, 8 + len(header)
    for name, (dtype, shape) in shapes.items():
        tensors[name] = whole[start : start + sizes[name]].view(dtype).view(shape)
        start += sizes[name]
    return tensors
