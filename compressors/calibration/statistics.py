"""Statistics of linear inputs over attended tokens, and their file form."""

import json
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import Literal

from safetensors import SafetensorError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from compressors.calibration.cache import ByteCache
from compressors.moments import Moments
from infra.errors import InvalidInputError

Site = Literal["attention_in", "attention_out", "feed_forward_in", "feed_forward_mid"]
"""The four distinct inputs of a layer: of query, key and value; of the output projection; of ``up``; of ``down``."""

SITES: tuple[Site, ...] = ("attention_in", "attention_out", "feed_forward_in", "feed_forward_mid")

_CACHE_BYTES = 256 * 2**20
_FORMAT = "paretune-calibration-1"
_TENSORS = ("centred", "mean", "mean_absolute", "max_absolute")


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

    def moments(self) -> Moments:
        """Return the moments in float64."""
        return Moments(self.centred.double(), self.mean, self.count)


@dataclass
class Calibration:
    """Everything that one pass over the calibration text found out about a dense model."""

    inputs: dict[tuple[int, Site], InputStatistics]
    """By index of the layer in the dense model, and site."""
    tokens: int
    """Attended tokens that were seen."""
    similarity: dict[int, float]
    """Mean cosine between the state that enters a layer and the one that leaves it; near 1: the layer does little."""
    orders: dict[str, Tensor] = field(default_factory=dict)
    """Removal orders, which depend on model and calibration only: ``"<layer>.<heads|channels>.<criterion>"``."""
    cache: ByteCache = field(default_factory=lambda: ByteCache(_CACHE_BYTES), repr=False, compare=False)
    """Factorisations shared by recipes; not saved."""

    def at(self, layer: int, site: Site) -> InputStatistics:
        """Return the statistics of one input.

        Raises:
            InvalidInputError: this calibration has not seen that input: it belongs to another model.
        """
        try:
            return self.inputs[layer, site]
        except KeyError:
            raise InvalidInputError(
                f"The calibration has no statistics for {site} of layer {layer}.",
                hint="Calibrate again with this model.",
            ) from None

    def save(self, path: Path) -> None:
        """Write everything but the cache as safetensors. Equal calibrations give equal bytes."""
        tensors = {f"orders/{name}": order for name, order in self.orders.items()}
        for (layer, site), statistics in self.inputs.items():
            for name in _TENSORS:
                tensors[f"inputs/{layer}/{site}/{name}"] = getattr(statistics, name).contiguous()
        facts = {
            "format": _FORMAT,
            "tokens": self.tokens,
            "similarity": self.similarity,
            "counts": {f"{layer}/{site}": statistics.count for (layer, site), statistics in self.inputs.items()},
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        # One metadata key: safetensors writes several in random order.
        save_file(tensors, path, metadata={"paretune": json.dumps(facts, sort_keys=True)})

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read what :meth:`save` wrote.

        Raises:
            InvalidInputError: not a calibration file, or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {}).get("paretune", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)
            if facts.get("format") != _FORMAT:
                raise ValueError(f"format {facts.get('format')!r}")
            return cls(
                inputs=_inputs(facts, tensors),
                tokens=facts["tokens"],
                similarity={int(layer): value for layer, value in facts["similarity"].items()},
                orders={key.removeprefix("orders/"): t for key, t in tensors.items() if key.startswith("orders/")},
            )
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise InvalidInputError(
                f"{path.name} is not a calibration file that can be read: {error}.", hint="Calibrate again."
            ) from error


def _inputs(facts: dict[str, Any], tensors: dict[str, Tensor]) -> dict[tuple[int, Site], InputStatistics]:
    result: dict[tuple[int, Site], InputStatistics] = {}
    for layer in sorted({int(key.split("/")[0]) for key in facts["counts"]}):
        for site in SITES:
            key = f"{layer}/{site}"
            if key in facts["counts"]:
                parts = {name: tensors[f"inputs/{key}/{name}"] for name in _TENSORS}
                result[layer, site] = InputStatistics(count=facts["counts"][key], **parts)
    return result
