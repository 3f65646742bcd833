"""The search space: which parameters there are, and how parameter values become a recipe and back.

Every parameter has finitely many levels. Samplers of :mod:`search.strategies` see the parameters; everybody else sees
recipes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from infra.errors import InvalidInputError
from profilers.types import Capabilities
from search.canonical import break_even_rank
from search.canonical import canonicalise
from search.formats import NumberFormat
from search.formats import offered_formats
from search.prepared import GraphDefaults
from search.requests import Kind
from search.requests import Space

Value = int | float | bool | str | None
Params = dict[str, Value]

SPARSITY_LEVELS = (0.0, 0.25, 0.5, 0.625, 0.75, 0.875)
RANK_STEP = 16


@dataclass(frozen=True)
class Parameter:
    """One dimension of the space.

    Attributes:
        name: For example ``layer.3.heads``.
        levels: All values that it can take.
        ordered: Whether neighbours in ``levels`` are similar.
    """

    name: str
    levels: tuple[Value, ...]
    ordered: bool = True


class Searchable(Protocol):
    """Parameters with a meaning: what samplers search."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The dimensions."""
        ...

    @property
    def size(self) -> float:
        """Number of parameter combinations."""
        ...

    def to_recipe(self, params: Params) -> Recipe:
        """Return the canonical recipe that ``params`` stand for."""
        ...


@dataclass(frozen=True)
class SearchSpace:
    """Parameters of one job, after the device's capabilities have been taken into account.

    Attributes:
        anatomy: Shape of the dense model.
        parameters: Dimensions with at least two levels.
        kinds: Kinds of compression that are left.
        notes: Why a kind that was allowed is not searched, for the report.
        bits: Weight bit-widths that may be chosen branch by branch.
        formats: Integer formats that whole models may have; the first is that of the search.
        precisions: Floating-point arithmetics that are searched.
        defaults: The device's preferred graph.
        min_layers: Layers that always stay.
    """

    anatomy: Anatomy
    parameters: tuple[Parameter, ...]
    kinds: tuple[Kind, ...]
    notes: tuple[str, ...]
    bits: tuple[int, ...]
    formats: tuple[NumberFormat, ...]
    precisions: tuple[str, ...]
    defaults: GraphDefaults
    min_layers: int

    @property
    def size(self) -> float:
        """Number of parameter combinations (an upper bound on different recipes)."""
        return math.prod(float(len(parameter.levels)) for parameter in self.parameters)

    @property
    def solver_bits(self) -> tuple[int, ...]:
        """Bit-widths among which the solver chooses, branch by branch: those of the device's table.

        Integers only where floating point is computed in 32 bits: beside faster arithmetic whole models are tried in
        them.
        """
        return tuple(bits for bits in self.bits if bits == 32 or self.defaults.precision == "f32")

    def dense_recipe(self) -> Recipe:
        """The dense model in the device's preferred graph."""
        return Recipe.dense(self.anatomy.layers).model_copy(
            update={
                "graph": self.defaults.graph,
                "quantization": self.defaults.quantization,
                "precision": self.defaults.precision,
            }
        )

    def canonical(self, recipe: Recipe) -> Recipe:
        """Return the canonical form in the device's graph, with layers restored until ``min_layers`` are present."""
        recipe = canonicalise(recipe, self.anatomy)
        missing = self.min_layers - sum(not layer.removed for layer in recipe.layers)
        if missing > 0:
            layers = list(recipe.layers)
            for index, layer in enumerate(layers):
                if layer.removed and missing > 0:
                    layers[index] = LayerRecipe()
                    missing -= 1
            recipe = canonicalise(recipe.model_copy(update={"layers": tuple(layers)}), self.anatomy)
        return recipe.model_copy(update={"graph": self.defaults.graph_for(recipe)})

    def to_recipe(self, params: Params) -> Recipe:
        """Return the canonical recipe that ``params`` describe; parameters that are missing keep their dense value."""
        layers = tuple(_layer_recipe(params, index) for index in range(self.anatomy.layers))
        precision = params.get("precision", self.defaults.precision)
        scheme = params.get("scheme", self.defaults.quantization.scheme)
        update = {"layers": layers, "precision": precision, "quantization": self._quantization(scheme)}
        return self.canonical(self.dense_recipe().model_copy(update=update))

    def to_params(self, recipe: Recipe) -> Params | None:
        """Return parameter values that :meth:`to_recipe` maps to ``recipe``, or ``None`` if it is not in the space."""
        recipe = self.canonical(recipe)
        integers = any(8 in (layer.attention.bits, layer.feed_forward.bits) for layer in recipe.layers)
        scheme = recipe.quantization.scheme if integers else self.defaults.quantization.scheme
        values: Params = {"precision": recipe.precision, "scheme": scheme}
        shapes = zip(recipe.layers, self.anatomy.heads, self.anatomy.intermediate_size, strict=True)
        for index, (layer, heads, width) in enumerate(shapes):
            values |= _layer_params(layer, index, heads, width)
        params = {parameter.name: values[parameter.name] for parameter in self.parameters}
        on_grid = all(params[parameter.name] in parameter.levels for parameter in self.parameters)
        return params if on_grid and self.to_recipe(params) == recipe else None

    def _quantization(self, scheme: Value) -> QuantizationRecipe:
        """Return how 8-bit branches are computed under a scheme."""
        found = (entry.quantization for entry in self.formats if entry.bits == 8)
        return next((entry for entry in found if entry.scheme == scheme), self.defaults.quantization)


def build_space(anatomy: Anatomy, capabilities: Capabilities, space: Space, defaults: GraphDefaults) -> SearchSpace:
    """Intersect what the user allows with what the device runs and gains from.

    Raises:
        InvalidInputError: If nothing is left to search.
    """
    kinds, notes = _useful_kinds(space.kinds, capabilities)
    formats = offered_formats(capabilities, defaults, space.formats) if "bits" in kinds else ()
    bits, schemes = _searched_formats(formats, asked=space.formats is not None)
    if formats and formats[0].bits == 8:
        defaults = defaults.model_copy(update={"quantization": formats[0].quantization})
    precisions = capabilities.precisions if "bits" in kinds else (defaults.precision,)
    parameters: list[Parameter] = [
        Parameter("precision", tuple(precisions), ordered=False),
        Parameter("scheme", schemes, ordered=False),
    ]
    for index, (heads, width) in enumerate(zip(anatomy.heads, anatomy.intermediate_size, strict=True)):
        parameters += _layer_parameters(index, heads, width, anatomy, kinds, space, bits)
    searched = tuple(parameter for parameter in parameters if len(parameter.levels) > 1)
    if not searched:
        raise InvalidInputError(
            "Nothing is left to search: the device gains from no kind of compression that the request allows.",
            hint=" ".join(notes) or "Allow more kinds in space.kinds, or smaller steps.",
        )
    return SearchSpace(
        anatomy=anatomy,
        parameters=searched,
        kinds=kinds,
        notes=notes,
        bits=bits,
        formats=formats,
        precisions=tuple(precisions),
        defaults=defaults,
        min_layers=min(space.min_layers, anatomy.layers),
    )


def _searched_formats(formats: Sequence[NumberFormat], *, asked: bool) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """Return bit-widths of single branches, and schemes of their 8-bit products: all of them only if asked for."""
    searched = formats if asked else [entry for entry in formats[:1] if entry.bits == 8]
    bits = sorted({32, *(entry.bits for entry in searched)}, reverse=True)
    return tuple(bits), tuple(entry.quantization.scheme for entry in searched if entry.bits == 8)


def width_levels(full: int, step: int, *, may_remove: bool) -> tuple[int, ...]:
    """Return the widths a branch can have: full, full - step, ... down to at least one, and 0 if it may be removed."""
    levels = [*range(full, 0, -step)]
    return tuple(sorted([0, *levels] if may_remove else levels))


def rank_levels(rows: int, columns: int) -> tuple[int | None, ...]:
    """Return the ranks worth trying for a ``rows x columns`` matrix: up to break-even, and ``None`` for full rank."""
    limit = break_even_rank(rows, columns)
    step = max(RANK_STEP, limit // 8 // RANK_STEP * RANK_STEP)
    return (*range(min(step, max(1, limit // 2)), limit, step), None)


def _useful_kinds(kinds: tuple[Kind, ...], capabilities: Capabilities) -> tuple[tuple[Kind, ...], tuple[str, ...]]:
    reasons: dict[Kind, str] = {}
    if not capabilities.sparse_speedup:
        reasons["sparsity"] = "Sparsity is not searched: zeros in a weight do not make this device faster."
    if not capabilities.low_rank:
        reasons["rank"] = "Low rank is not searched: this device does not gain from it."
    if set(capabilities.bits) <= {32} and len(capabilities.precisions) < 2:
        reasons["bits"] = "Bit-widths are not searched: this device runs 32 bits only."
    useful = tuple(kind for kind in kinds if kind not in reasons)
    return useful, tuple(reasons[kind] for kind in kinds if kind in reasons)


def _layer_parameters(
    index: int, heads: int, width: int, anatomy: Anatomy, kinds: tuple[Kind, ...], space: Space, bits: tuple[int, ...]
) -> list[Parameter]:
    prefix = f"layer.{index}"
    may_remove = "depth" in kinds
    parameters = []
    if may_remove:
        parameters.append(Parameter(f"{prefix}.removed", (False, True), ordered=False))
    if "heads" in kinds:
        levels = width_levels(heads, space.head_step, may_remove=may_remove)
        parameters.append(Parameter(f"{prefix}.heads", levels))
    if "ffn" in kinds:
        levels = width_levels(width, space.ffn_step, may_remove=may_remove)
        parameters.append(Parameter(f"{prefix}.ffn", levels))
    for branch, rows in (("attention", heads * anatomy.head_size), ("ffn", width)):
        if "rank" in kinds:
            parameters.append(Parameter(f"{prefix}.{branch}_rank", rank_levels(rows, anatomy.hidden_size)))
        if "sparsity" in kinds:
            parameters.append(Parameter(f"{prefix}.{branch}_sparsity", SPARSITY_LEVELS))
        if "bits" in kinds:
            parameters.append(Parameter(f"{prefix}.{branch}_bits", bits, ordered=False))
    return parameters


def _layer_recipe(params: Params, index: int) -> LayerRecipe:
    def get(name: str, default: Value) -> Value:
        return params.get(f"layer.{index}.{name}", default)

    return LayerRecipe.model_validate(
        {
            "removed": get("removed", False),
            "attention": AttentionRecipe.model_validate(
                {
                    "heads": get("heads", None),
                    "rank": get("attention_rank", None),
                    "sparsity": get("attention_sparsity", 0.0),
                    "bits": get("attention_bits", 32),
                }
            ),
            "feed_forward": FeedForwardRecipe.model_validate(
                {
                    "intermediate_size": get("ffn", None),
                    "rank": get("ffn_rank", None),
                    "sparsity": get("ffn_sparsity", 0.0),
                    "bits": get("ffn_bits", 32),
                }
            ),
        }
    )


def _layer_params(layer: LayerRecipe, index: int, heads: int, width: int) -> Params:
    attention, feed_forward = layer.attention, layer.feed_forward
    values: Params = {
        "removed": layer.removed,
        "heads": heads if attention.heads is None else attention.heads,
        "ffn": width if feed_forward.intermediate_size is None else feed_forward.intermediate_size,
        "attention_rank": attention.rank,
        "attention_sparsity": attention.sparsity,
        "attention_bits": attention.bits,
        "ffn_rank": feed_forward.rank,
        "ffn_sparsity": feed_forward.sparsity,
        "ffn_bits": feed_forward.bits,
    }
    return {f"layer.{index}.{name}": value for name, value in values.items()}
