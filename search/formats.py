"""Number formats: which of them a device runs and a request allows, and whole models in one of them."""

from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compressors.recipe import Bits
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.types import Capabilities
from search.prepared import GraphDefaults
from search.requests import IntegerFormat

Scheme = Literal["dynamic", "static", "weight_only"]

_SPELLINGS: dict[IntegerFormat, tuple[Bits, Scheme]] = {
    "int8_dynamic": (8, "dynamic"),
    "int8_static": (8, "static"),
    "int8_weights": (8, "weight_only"),
    "int4_weights": (4, "weight_only"),
}
_NAMES: dict[tuple[Bits, Scheme], str] = {
    (8, "dynamic"): "int8",
    (8, "static"): "int8 static",
    (8, "weight_only"): "int8 weights",
    (4, "weight_only"): "int4 weights",
}


@dataclass(frozen=True)
class NumberFormat:
    """How all branches of a model may be stored and computed in integers.

    Attributes:
        bits: Of the weights.
        quantization: Everything else.
    """

    bits: Bits
    quantization: QuantizationRecipe

    @property
    def name(self) -> str:
        """For example ``int8 static``."""
        return format_name(self.bits, self.quantization)


def format_name(bits: Bits, quantization: QuantizationRecipe) -> str:
    """Name an integer format in words; 4 bits are weight-only under every scheme."""
    scheme: Scheme = "weight_only" if bits == 4 else quantization.scheme
    return _NAMES[bits, scheme] + (" gptq" if quantization.rounding == "gptq" else "")


def offered_formats(
    capabilities: Capabilities, defaults: GraphDefaults, allowed: Sequence[IntegerFormat] | None
) -> tuple[NumberFormat, ...]:
    """Return the integer formats that the device runs and the request allows, the device's preferred one first."""
    found = []
    for name, (bits, scheme) in _SPELLINGS.items():
        if bits in capabilities.bits and scheme in capabilities.schemes and (allowed is None or name in allowed):
            found.append(NumberFormat(bits, _quantization(scheme, defaults.quantization)))
    return tuple(sorted(found, key=lambda entry: entry.bits != 8 or entry.quantization != defaults.quantization))


def alternatives(offered: Sequence[NumberFormat], solved: Collection[int]) -> list[NumberFormat]:
    """Return the formats that are worth a try on a good shape, the most promising first.

    The solver works in the first offered one, unless it keeps to floating point: that is where bf16 is faster.

    With error compensation (GPTQ) the first costs nothing at run time, and few bits lose less. It takes the place of
    smoothing, which would move its weights off the grid that they were put on.

    Args:
        offered: What the device runs and the request allows (:func:`offered_formats`).
        solved: Weight bit-widths of the options that shapes are solved from.
    """
    found = [entry for entry in offered if entry is not offered[0] or entry.bits not in solved]
    for entry in offered:
        if entry.bits == 4 or entry is offered[0]:
            compensated = entry.quantization.model_copy(update={"rounding": "gptq", "smoothing": 0.0})
            found.append(NumberFormat(entry.bits, compensated))
    return found


def in_format(recipe: Recipe, number_format: NumberFormat) -> Recipe:
    """Return the recipe with all its branches in one format; canonicalise it afterwards."""
    layers = tuple(layer.with_branches(bits=number_format.bits) for layer in recipe.layers)
    return recipe.model_copy(update={"layers": layers, "quantization": number_format.quantization})


def has_format(recipe: Recipe, number_format: NumberFormat) -> bool:
    """Whether a canonical recipe has branches in a format, and none in another integer format."""
    branches = [branch for layer in recipe.layers for branch in (layer.attention, layer.feed_forward)]
    bits = {branch.bits for branch in branches if branch.bits < 16}
    given, wanted = recipe.quantization, number_format.quantization
    return bits == {number_format.bits} and (given.scheme, given.rounding) == (wanted.scheme, wanted.rounding)


def _quantization(scheme: Scheme, preferred: QuantizationRecipe) -> QuantizationRecipe:
    if scheme == preferred.scheme:
        return preferred
    update: dict[str, object] = {"scheme": scheme, "attention_products": False, "smoothing": 0.0}
    if scheme == "static":
        update["ranges"] = "percentile"
    if scheme == "weight_only":
        update["reduce_range"] = False  # no products of integers
    return preferred.model_copy(update=update)
