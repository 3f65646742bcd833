"""The option database: all that every branch may become, in one currency.

Levels and their errors follow ZipLM (Kurtic et al. 2023, arXiv:2302.04089); the end-to-end divergence of replacing a
branch alone is evaluated at a few levels, the *anchors*, and interpolated along the error between them. Widths that
only few devices tell apart from their neighbours get their errors by interpolation as well: there are many of them.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import MutableMapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np
from scipy.interpolate import PchipInterpolator

from compressors.calibration.cache import ByteCache
from compressors.calibration.statistics import Calibration
from compressors.export.simulation import FileArithmetic
from compressors.network import EncoderNetwork
from compressors.network import Layer
from compressors.options.branches import Branch
from compressors.options.branches import BranchLibrary
from compressors.options.branches import stored_bytes
from compressors.options.errors import BranchErrors
from compressors.options.levels import STEPS
from compressors.options.levels import all_width_levels
from compressors.options.levels import anchor_levels
from compressors.options.levels import computed_width_levels
from compressors.options.levels import head_levels
from compressors.options.levels import width_levels
from compressors.options.merges import Merge
from compressors.options.merges import find_drops
from compressors.options.merges import find_merges
from compressors.options.scoring import ScoringSet
from compressors.options.secondary import low_rank_recipes
from compressors.options.secondary import sparse_recipes
from compressors.options.stitch import StitchedModel
from compressors.recipe import AttentionRecipe
from compressors.recipe import Bits
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.tensors import named_tensors
from infra.memory import release_memory


@dataclass(frozen=True)
class BranchOption:
    """One thing that a branch may become.

    Attributes:
        recipe: Of the branch.
        error: Relative squared error of the branch's output on the calibration text; 0 is dense, 1 is removed. At some
            widths it is interpolated (:func:`compressors.options.levels.computed_width_levels`).
        divergence: Of the whole model with this branch alone replaced, on the scoring text; at anchors it was
            evaluated, elsewhere it is interpolated.
        size_bytes: Stored size of the branch.
    """

    recipe: BranchRecipe
    error: float
    divergence: float
    size_bytes: int


@dataclass(frozen=True)
class BranchUnit:
    """A branch of the layer at a position in the network, with its options, the dense one first."""

    layer: int
    kind: str
    options: tuple[BranchOption, ...]


Price = tuple[float, int]
"""Relative error and stored bytes."""
UnitName = tuple[int, str]
"""Position of the layer in the network, and kind."""


@dataclass(frozen=True)
class OptionSet:
    """All units in the order of the network, and what belongs to no single one.

    Attributes:
        units: The branches.
        fixed_size_bytes: Stored size of everything else.
        drops: Divergence of the model without a layer, for each layer; empty if it was not asked for.
        merges: What merging layers does; empty if it was not asked for.
    """

    units: tuple[BranchUnit, ...]
    fixed_size_bytes: int
    drops: tuple[float, ...] = ()
    merges: tuple[Merge, ...] = ()


def build_options(
    network: EncoderNetwork,
    calibration: Calibration,
    scoring: ScoringSet,
    recipe: Recipe,
    bits: Sequence[Bits] = (32,),
    *,
    low_rank: bool = False,
    zeros: bool = False,
    depth: bool = False,
    progress: Callable[[int, int], None] | None = None,
    built: MutableMapping[UnitName, BranchUnit] | None = None,
) -> OptionSet:
    """Build the database. Deterministic: the same arguments give the same numbers.

    Args:
        network: The dense model.
        calibration: Its calibration; removal orders that it lacks are found and kept in it.
        scoring: Text that the calibration has not seen.
        recipe: Global choices of the candidates, such as the order of removal; its layers are ignored.
        bits: Weight bit-widths of the device: 32 or 16, and 8.
        low_rank: Whether to offer factorised branches, alone and in chains with narrower widths and fewer bits, where
            no branch in the same bits that is only narrower, to a width for any device, is both smaller and closer.
        zeros: Whether to offer branches with zeros in their weights, alone and in a chain.
        depth: Whether to try what becomes of the model where whole layers are dropped, or merged into others.
        progress: Called with the number of units that are done and the number of all.
        built: Units that an earlier call with the same arguments has left: they are not built again. Each new one is
            put into it when it is done.
    """
    shares = sum(map(_factor_bytes, network.layers)) <= calibration.cache.limit
    if not shares:
        room = min(calibration.cache.limit, max(map(_factor_bytes, network.layers)))
        calibration = replace(calibration, cache=ByteCache(room))
    library = BranchLibrary(network, calibration, recipe, cache_bytes=0)
    model = StitchedModel(network, scoring, follow=True, arithmetic=FileArithmetic.of(recipe, grid="text"))
    kinds = [
        (index, kind)
        for index, layer in enumerate(network.layers)
        for kind in ("attention", "feed_forward")
        if getattr(layer, kind) is not None
    ]
    built = {} if built is None else built
    for number, (index, kind) in enumerate(kinds):
        if (index, kind) not in built:
            unit = _Unit(library, model, index, kind, shares)
            built[index, kind] = unit.build(bits, low_rank=low_rank, zeros=zeros)
            unit.make_room()
        if progress is not None:
            progress(number + 1, len(kinds))
    drops = find_drops(network, model) if depth else ()
    merges = find_merges(network, model, drops) if depth else ()
    return OptionSet(tuple(built[name] for name in kinds), _fixed_bytes(network), drops, merges)


@dataclass
class _Unit:
    """Builds the options of one branch.

    Attributes:
        library: Builds what the branch may become.
        model: Scores it.
        index: Position of the layer.
        kind: Of the branch.
        shares: Whether there is room for the factors of all layers: then they are left to later candidates.
    """

    library: BranchLibrary
    model: StitchedModel
    index: int
    kind: str
    shares: bool

    def build(self, bits: Sequence[Bits], *, low_rank: bool, zeros: bool) -> BranchUnit:
        layer = self.library.network.layers[self.index]
        computed = _computed_levels(layer, self.kind)
        anchors = anchor_levels(computed)
        curve = [(0.0, 0.0)]
        errors = self._errors(layer)
        known: dict[int, Price] = {}
        for level in computed:
            branch = self._branch(self._recipe(level, bits=max(bits)))
            known[level] = (errors.relative_error(branch), self._stored_bytes(branch))
            if level in anchors:
                curve.append((known[level][0], self._divergence(branch)))
        prices = {max(bits): _Interpolation(curve)}
        options = self._narrowed(known, max(bits), prices[max(bits)])
        for fewer in sorted(set(bits) - {max(bits)}, reverse=True):
            dense = self._branch(self._recipe(None, bits=fewer))
            prices[fewer] = prices[max(bits)].raised(self._divergence(dense))
            for level in computed[:-1]:
                branch = self._branch(self._recipe(level, bits=fewer))
                known[level] = (errors.relative_error(branch), self._stored_bytes(branch))
            options += self._narrowed(known, fewer, prices[fewer])[:-1]
        self.make_room()
        everywhere = _levels_everywhere(layer, self.kind)
        narrow = [option for option in options if option.recipe.level in everywhere]
        floating, fewest = self._recipe(None, bits=max(bits)), self._recipe(None, bits=min(bits))
        if low_rank:
            found = self._options(low_rank_recipes(floating, fewest, layer), errors, prices)
            options += [option for option in found if not any(_is_better(other, option) for other in narrow)]
        if zeros:
            options += self._options(sparse_recipes(floating, fewest, layer), errors, prices)
        return BranchUnit(self.index, self.kind, tuple(options))

    def _narrowed(self, known: Mapping[int, Price], bits: Bits, divergence: "_Interpolation") -> list[BranchOption]:
        """Return the options of all levels in a bit-width, the removed branch last."""
        prices = filled_in(known, _levels(self.library.network.layers[self.index], self.kind))
        return [
            BranchOption(self._recipe(level, bits=bits), error, divergence(error), size)
            for level, (error, size) in prices.items()
        ]

    def _options(
        self, recipes: Iterable[BranchRecipe], errors: BranchErrors, prices: Mapping[Bits, "_Interpolation"]
    ) -> list[BranchOption]:
        """Build branches for their errors; divergences follow from these, by bit-width."""
        found: list[BranchOption] = []
        for recipe in recipes:
            if found and found[-1].recipe.level != recipe.level:
                self.make_room()
            branch = self._branch(recipe)
            error = errors.relative_error(branch)
            found.append(BranchOption(recipe, error, prices[recipe.bits](error), self._stored_bytes(branch)))
        return found

    def make_room(self) -> None:
        """Give back what options of other widths do not need."""
        if not self.shares:
            self.library.calibration.cache.clear()
        release_memory()

    def _branch(self, recipe: BranchRecipe) -> Branch:
        """Build a branch; where memory is short, what building has left behind is given back at once."""
        if self.shares:
            return self.library.get(self.index, recipe)
        release_memory()
        branch = self.library.get(self.index, recipe)
        release_memory()
        return branch

    def _stored_bytes(self, branch: Branch) -> int:
        return stored_bytes(branch.linears, self.library.recipe.quantization)

    def _recipe(self, level: int | None, *, bits: Bits) -> BranchRecipe:
        dense = _levels(self.library.network.layers[self.index], self.kind)[0]
        width = None if level == dense else level
        kept: Bits = 32 if level == 0 else bits
        if self.kind == "attention":
            return AttentionRecipe(heads=width, bits=kept)
        return FeedForwardRecipe(intermediate_size=width, bits=kept)

    def _errors(self, layer: Layer) -> BranchErrors:
        return BranchErrors(layer, self.kind, self.library.calibration, self.library.recipe.criterion)

    def _divergence(self, branch: Branch) -> float:
        return self.model.divergence({(self.index, self.kind): branch})


def filled_in(known: Mapping[int, Price], levels: Sequence[int]) -> dict[int, Price]:
    """Return error and stored bytes at all levels from those at some, among which are the widest and 0.

    Errors lie on a smooth curve that turns nowhere between two that are known (Fritsch and Carlson 1980); bytes are a
    constant and a multiple of the width.

    Args:
        known: Error and bytes by level; two levels above 0 at least, if any is not known.
        levels: In descending order.
    """
    missing = [level for level in levels if level not in known]
    if not missing:
        return {level: known[level] for level in levels}
    widths = sorted(known)
    errors = PchipInterpolator(widths, [known[width][0] for width in widths])(missing)
    (low, (_, least)), (high, (_, most)) = ((width, known[width]) for width in (widths[1], widths[-1]))
    found = {
        level: (float(error), least + round((most - least) * (level - low) / (high - low)))
        for level, error in zip(missing, errors, strict=True)
    }
    return {level: known[level] if level in known else found[level] for level in levels}


class _Interpolation:
    """Divergence as a never decreasing, piecewise linear function of the error."""

    def __init__(self, points: Sequence[tuple[float, float]], more: float = 0.0) -> None:
        self._more = more
        ordered = sorted(points)
        self._errors = np.array([error for error, _ in ordered])
        self._divergences = np.maximum.accumulate([divergence for _, divergence in ordered])

    def __call__(self, error: float) -> float:
        return self._more + float(np.interp(error, self._errors, self._divergences))

    def raised(self, more: float) -> "_Interpolation":
        """Return the same function plus what rounding the dense branch costs."""
        return _Interpolation(list(zip(self._errors, self._divergences, strict=True)), more)


def _is_better(other: BranchOption, option: BranchOption) -> bool:
    return (
        other.recipe.bits == option.recipe.bits
        and other.size_bytes <= option.size_bytes
        and other.error <= option.error
    )


def _levels_everywhere(layer: Layer, kind: str) -> set[int | None]:
    """Return the levels that a solver may use on any device; ``None``: all heads or channels."""
    if kind == "attention":
        return {None, *_levels(layer, kind)}
    assert layer.feed_forward is not None
    full = layer.feed_forward.intermediate_size
    return {None}.union(set.intersection(*(set(width_levels(full, step)) for step in STEPS)))


def _levels(layer: Layer, kind: str) -> tuple[int, ...]:
    if kind == "attention":
        assert layer.attention is not None
        return head_levels(layer.attention.heads)
    assert layer.feed_forward is not None
    return all_width_levels(layer.feed_forward.intermediate_size)


def _computed_levels(layer: Layer, kind: str) -> tuple[int, ...]:
    """Return the levels whose branches are built."""
    if kind == "attention":
        return _levels(layer, kind)
    assert layer.feed_forward is not None
    return computed_width_levels(layer.feed_forward.intermediate_size)


def _factor_bytes(layer: Layer) -> int:
    """Return what the factorisations of a layer's options take together.

    Of what writes to the residual stream a triangular factor with its projections, for removal; of every matrix a basis
    for low rank. Where those of all layers do not fit the calibration's cache, there is room for one layer's: they are
    of no use to the layers after it, and of wide layers each takes as much as the weights of several.
    """
    total = 0
    for kind in ("attention", "feed_forward"):
        for linear in Branch(getattr(layer, kind)).linears:
            total += linear.outputs * min(linear.outputs, linear.inputs)
        if getattr(layer, kind) is not None:
            total += linear.inputs * (linear.inputs + linear.outputs)
    return 8 * total


def _fixed_bytes(network: EncoderNetwork) -> int:
    everything = sum(tensor.numel() for tensor in named_tensors(network).values()) * 4
    branches = sum(
        stored_bytes(Branch(getattr(layer, kind)).linears, QuantizationRecipe())
        for layer in network.layers
        for kind in ("attention", "feed_forward")
    )
    return everything - branches
