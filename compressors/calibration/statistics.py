"""Statistics of linear inputs over attended tokens, in memory or in a file."""

import json
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Literal
from typing import cast

import torch
from safetensors import SafetensorError
from safetensors import safe_open
from torch import Tensor

from compressors.calibration.cache import ByteCache
from compressors.calibration.tensor_file import Shape
from compressors.calibration.tensor_file import write_tensors
from compressors.moments import Moments
from infra.errors import InvalidInputError

Site = Literal["attention_in", "attention_out", "feed_forward_in", "feed_forward_mid"]
"""The four distinct inputs of a layer: of query, key and value; of the output projection; of ``up``; of ``down``."""


Input = tuple[int, Site]
"""Index of the layer in the dense model, and site."""

_CACHE_BYTES = 256 * 2**20
_HELD_BYTES = 80 * 2**20
"""Statistics from a file that stay in memory: those of a layer of 3,072 channels, or a small model's."""
_FORMAT = "paretune-calibration-1"


@dataclass(frozen=True)
class InputStatistics:
    """Moments of one linear input of width ``d``."""

    centred: Tensor
    """``C = X^T X - n mean mean^T``, float32 ``[d, d]``; accumulated in float64."""
    mean: Tensor
    """float64 ``[d]``, over the tokens of ``centred``."""
    count: int
    """Tokens that ``centred`` and ``mean`` are taken over."""
    mean_absolute: Tensor
    """float32 ``[d]``, over all attended tokens."""
    max_absolute: Tensor
    """float32 ``[d]``, over all attended tokens."""

    @property
    def width(self) -> int:
        """``d``."""
        return int(self.centred.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(shape.nbytes for shape in _shapes(self.width).values())

    def read(self) -> "InputStatistics":
        """Return itself: it is in memory."""
        return self

    def moments(self) -> Moments:
        """Return the moments in float64."""
        return self.stored().double()

    def stored(self) -> Moments:
        """Return the moments with the centred Gram matrix in float32, without a copy."""
        return Moments(self.centred, self.mean, self.count)


@dataclass(frozen=True)
class StoredStatistics:
    """Statistics in a calibration file."""

    path: Path
    name: str
    """Of the input, as in the file."""
    width: int
    count: int

    def read(self) -> InputStatistics:
        """Copy the statistics out of the file, so that no page of it stays in memory.

        Raises:
            InvalidInputError: the file is gone or damaged.
        """
        try:
            with safe_open(self.path, framework="pt") as file:
                parts = {name: torch.clone(file.get_tensor(f"{self.name}/{name}")) for name in _shapes(self.width)}
        except (OSError, SafetensorError) as error:
            raise _unreadable(self.path, error) from error
        return InputStatistics(count=self.count, **parts)


@dataclass
class Calibration:
    """Everything that one pass over the calibration text found out about a dense model."""

    inputs: Mapping[Input, InputStatistics | StoredStatistics]
    """What comes from a file stays there until it is asked for."""
    tokens: int
    """Attended tokens that were seen."""
    similarity: dict[int, float]
    """Mean cosine between the state that enters a layer and the one that leaves it; near 1: the layer does little."""
    orders: dict[str, Tensor] = field(default_factory=dict)
    """Removal orders, which depend on model and calibration only: ``"<layer>.<heads|channels>.<criterion>"``."""
    cache: ByteCache = field(default_factory=lambda: ByteCache(_CACHE_BYTES), repr=False, compare=False)
    """Factorisations shared by recipes; not saved."""
    held: ByteCache = field(default_factory=lambda: ByteCache(_HELD_BYTES), repr=False, compare=False)
    """Statistics that were read from the file last."""

    def at(self, layer: int, site: Site) -> InputStatistics:
        """Return the statistics of one input.

        Raises:
            InvalidInputError: this calibration has not seen that input: it belongs to another model.
        """
        source = self._source(layer, site)
        if isinstance(source, InputStatistics):
            return source
        return self.held.get(f"{layer}/{site}", InputStatistics, source.read)

    def width(self, layer: int, site: Site) -> int:
        """Return the number of channels of one input, without reading anything.

        Raises:
            InvalidInputError: as for :meth:`at`.
        """
        return self._source(layer, site).width

    def _source(self, layer: int, site: Site) -> InputStatistics | StoredStatistics:
        try:
            return self.inputs[layer, site]
        except KeyError:
            raise InvalidInputError(
                f"The calibration has no statistics for {site} of layer {layer}.",
                hint="Calibrate again with this model.",
            ) from None

    def save(self, path: Path) -> None:
        """Write everything but the caches as safetensors, all of it or nothing. Equal calibrations give equal bytes."""
        shapes = {f"orders/{name}": Shape(torch.int64, tuple(order.shape)) for name, order in self.orders.items()}
        for (layer, site), source in self.inputs.items():
            shapes |= {f"{_name(layer, site)}/{name}": shape for name, shape in _shapes(source.width).items()}
        facts = {
            "format": _FORMAT,
            "tokens": self.tokens,
            "similarity": self.similarity,
            "counts": {f"{layer}/{site}": source.count for (layer, site), source in self.inputs.items()},
        }
        write_tensors(path, {"paretune": json.dumps(facts, sort_keys=True)}, shapes, self._tensors())

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Yield what :meth:`save` writes; the statistics of one input are in memory at a time."""
        for name, order in self.orders.items():
            yield f"orders/{name}", order
        for (layer, site), source in self.inputs.items():
            statistics = source.read()
            for name in _shapes(source.width):
                yield f"{_name(layer, site)}/{name}", getattr(statistics, name)

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Open what :meth:`save` wrote; statistics are read when they are asked for, so the file must stay.

        Raises:
            InvalidInputError: not a calibration file, or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get("paretune", "{}"))
                if facts.get("format") != _FORMAT:
                    raise ValueError(f"format {facts.get('format')!r}")
                inputs: dict[Input, StoredStatistics] = {}
                for key, count in facts["counts"].items():
                    layer, site = key.split("/")
                    width = file.get_slice(f"inputs/{key}/mean").get_shape()[0]
                    inputs[int(layer), cast("Site", site)] = StoredStatistics(path, f"inputs/{key}", width, count)
                orders = [name for name in file.keys() if name.startswith("orders/")]  # noqa: SIM118  (not a mapping)
                return cls(
                    inputs=inputs,
                    tokens=facts["tokens"],
                    similarity={int(layer): value for layer, value in facts["similarity"].items()},
                    orders={name.removeprefix("orders/"): torch.clone(file.get_tensor(name)) for name in orders},
                )
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise _unreadable(path, error) from error


def join(parts: Sequence[Calibration]) -> Calibration:
    """Return the calibration of a model from those of its layers. All are read from the same text."""
    inputs = {key: source for part in parts for key, source in part.inputs.items()}
    similarity = {layer: value for part in parts for layer, value in part.similarity.items()}
    return Calibration(inputs, parts[0].tokens, similarity)


def _name(layer: int, site: Site) -> str:
    return f"inputs/{layer}/{site}"


def _shapes(width: int) -> dict[str, Shape]:
    """Return the tensors of the statistics of one input."""
    row = Shape(torch.float32, (width,))
    return {
        "centred": Shape(torch.float32, (width, width)),
        "mean": Shape(torch.float64, (width,)),
        "mean_absolute": row,
        "max_absolute": row,
    }


def _unreadable(path: Path, error: Exception) -> InvalidInputError:
    return InvalidInputError(
        f"{path.name} is not a calibration file that can be read: {error}.", hint="Calibrate again."
    )
