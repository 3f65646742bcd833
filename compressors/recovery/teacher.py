"""What the dense model says about the training texts: computed once and kept, or computed for every batch."""

import json
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from compressors.network import EncoderNetwork
from compressors.recovery.data import Batch
from compressors.recovery.data import TrainingData
from compressors.recovery.data import sequential_batches
from compressors.recovery.file_rows import FileRows
from compressors.recovery.file_rows import OpenFile
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
    states live in a safetensors file and are read batch by batch, so that those of a large data set take no memory.
    """

    def __init__(
        self, layers: int, digest: str, lengths: Tensor, output: Tensor, states: dict[int, Tensor | FileRows]
    ) -> None:
        """Take what the dense model says: int64 ``[texts]``, float32 ``[texts, D]``, and by layer ``[tokens, D]``."""
        self.layers = layers
        self.digest = digest
        self.state_layers = tuple(sorted(states))
        self._lengths, self._output, self._states = lengths, output, states
        self._starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)[:-1]])

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
        output = torch.empty(len(data), int(live.targets(next(sequential_batches(data, 1))).output.shape[1]))
        metadata = {"layers": str(live.layers), "digest": data.digest}
        temporary = None if path is None else path.with_name(path.name + ".partial")
        states: dict[int, Tensor | FileRows]
        if temporary is None:
            states = {layer: torch.empty(tokens, width, dtype=_STATE_TYPE) for layer in state_layers}
        else:
            states = dict(_create(temporary, lengths, output, state_layers, width, metadata))
        cache = cls(live.layers, data.digest, lengths, output, states)
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
        _write_output(temporary, output)
        temporary.replace(path)
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> "TeacherCache":
        """Open a file that :meth:`build` wrote. States are read when they are needed."""
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            lengths, output = file.get_tensor("lengths").clone(), file.get_tensor("output").clone()
        return cls(int(metadata["layers"]), metadata["digest"], lengths, output, dict(_open_states(path, write=False)))

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
        states = {layer: self._gather(layer, batch.indices, width) for layer in self.state_layers}
        return Targets(self._output[batch.indices], states)

    def _store(self, batch: Batch, targets: Targets) -> None:
        self._output[batch.indices] = targets.output
        for layer, states in targets.states.items():
            for row, index in enumerate(batch.indices.tolist()):
                start, length = int(self._starts[index]), int(self._lengths[index])
                self._states[layer][start : start + length] = states[row, :length].to(_STATE_TYPE)

    def _gather(self, layer: int, indices: Tensor, width: int) -> Tensor:
        """[batch, width, D], zero where there is no token."""
        source = self._states[layer]
        result = torch.zeros(len(indices), width, source.shape[1])
        for row, index in enumerate(indices.tolist()):
            start, length = int(self._starts[index]), int(self._lengths[index])
            result[row, :length] = source[start : start + length]
        return result


_SAFETENSORS_NAME = {torch.int64: "I64", torch.float32: "F32", torch.float16: "F16"}


def _create(
    path: Path, lengths: Tensor, output: Tensor, state_layers: Sequence[int], width: int, metadata: dict[str, str]
) -> dict[int, FileRows]:
    """Write a safetensors file that has the lengths and room for the rest; return the states in it."""
    shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        "lengths": (torch.int64, tuple(lengths.shape)),
        "output": (torch.float32, tuple(output.shape)),
        **{f"states.{layer}": (_STATE_TYPE, (int(lengths.sum()), width)) for layer in state_layers},
    }
    entries: dict[str, object] = {"__metadata__": metadata}
    offset = 0
    for name, (dtype, shape) in shapes.items():
        size = dtype.itemsize * torch.Size(shape).numel()
        entries[name] = {
            "dtype": _SAFETENSORS_NAME[dtype],
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + lengths.numpy().tobytes())
        file.truncate(8 + len(header) + offset)
    return _open_states(path, write=True)


def _write_output(path: Path, output: Tensor) -> None:
    """Put the outputs into their place."""
    entries, first = _header(path)
    with path.open("r+b") as file:
        file.seek(first + entries["output"]["data_offsets"][0])
        file.write(output.numpy().tobytes())


def _open_states(path: Path, *, write: bool) -> dict[int, FileRows]:
    """Return the token states of a file by layer."""
    entries, first = _header(path)
    file = OpenFile(path, write=write)
    return {
        int(name.removeprefix("states.")): FileRows(
            file, first + entry["data_offsets"][0], (entry["shape"][0], entry["shape"][1]), _STATE_TYPE
        )
        for name, entry in entries.items()
        if name.startswith("states.")
    }


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the entries of a safetensors file and the place of its first byte of data."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)), 8 + size
