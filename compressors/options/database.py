"""The option database: all that every branch may become, in one currency.

Levels and their errors follow ZipLM (Kurtic et al. 2023, arXiv:2302.04089); the end-to-end divergence of replacing a
branch alone is evaluated at a few levels, the *anchors*, and interpolated along the error between them.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compressors.calibration.statistics import Calibration
from compressors.network import EncoderNetwork
from compressors.network import Layer
from compressors.options.branches import Branch
from compressors.options.branches import BranchLibrary
from compressors.options.branches import BranchRecipe
from compressors.options.branches import stored_bytes
from compressors.options.errors import BranchErrors
from compressors.options.levels import anchor_levels
from compressors.options.levels import head_levels
from compressors.options.levels import low_ranks
from compressors.options.levels import width_levels
from compressors.options.scoring import ScoringSet
from compressors.options.stitch import StitchedModel
from compressors.recipe import AttentionRecipe
from compressors.recipe import Bits
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import Recipe
from compressors.tensors import named_tensors


@dataclass(frozen=True)
class BranchOption:
    """One thing that a branch may become.

    Attributes:
        recipe: Of the branch.
        error: Relative squared error of the branch's output on the calibration text; 0 is dense, 1 is removed.
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


@dataclass(frozen=True)
class OptionSet:
    """All units in the order of the network, and the stored size of what belongs to none."""

    units: tuple[BranchUnit, ...]
    fixed_size_bytes: int


def build_options(
    network: EncoderNetwork,
    calibration: Calibration,
    scoring: ScoringSet,
    recipe: Recipe,
    bits: Sequence[Bits] = (32,),
    *,
    low_rank: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> OptionSet:
    """Build the database. Deterministic: the same arguments give the same numbers.

    Args:
        network: The dense model.
        calibration: Its calibration; removal orders that it lacks are found and kept in it.
        scoring: Text that the calibration has not seen.
        recipe: Global choices of the candidates, such as the order of removal; its layers are ignored.
        bits: Weight bit-widths of the device: 32 or 16, and 8.
        low_rank: Whether to offer factorised branches, where no narrower branch is both smaller and closer.
        progress: Called with the number of units that are done and the number of all.
    """
    library = BranchLibrary(network, calibration, recipe, cache_bytes=0)
    model = StitchedModel(network, scoring, keep_states=True, round_activations=True)
    kinds = [
        (index, kind)
        for index, layer in enumerate(network.layers)
        for kind in ("attention", "feed_forward")
        if getattr(layer, kind) is not None
    ]
    units = []
    for number, (index, kind) in enumerate(kinds):
        units.append(_Unit(library, model, index, kind).build(bits, low_rank=low_rank))
        if progress is not None:
            progress(number + 1, len(kinds))
    return OptionSet(tuple(units), _fixed_bytes(network))


@dataclass
class _Unit:
    """Builds the options of one branch."""

    library: BranchLibrary
    model: StitchedModel
    index: int
    kind: str

    def build(self, bits: Sequence[Bits], *, low_rank: bool) -> BranchUnit:
        layer = self.library.network.layers[self.index]
        levels = _levels(layer, self.kind)
        plain = [self._recipe(level, bits=max(bits)) for level in levels]
        anchors = anchor_levels(levels)
        curve = [(0.0, 0.0)]
        errors = self._errors(layer)
        floats: list[tuple[float, int]] = []
        for level, recipe in zip(levels, plain, strict=True):
            branch = self.library.get(self.index, recipe)
            floats.append((errors.relative_error(branch), stored_bytes(branch.linears)))
            if level in anchors:
                curve.append((floats[-1][0], self._divergence(branch)))
        interpolate = _Interpolation(curve)
        options = [
            BranchOption(recipe, error, interpolate(error), size)
            for recipe, (error, size) in zip(plain, floats, strict=True)
        ]
        for fewer in sorted(set(bits) - {max(bits)}, reverse=True):
            options += self._rounded(levels, fewer, errors, interpolate)
        if low_rank:
            options += self._factorised(layer, max(bits), options, errors, interpolate)
        return BranchUnit(self.index, self.kind, tuple(options))

    def _rounded(
        self, levels: Sequence[int], bits: Bits, errors: BranchErrors, interpolate: "_Interpolation"
    ) -> list[BranchOption]:
        """Every level but removal with fewer bits; rounding costs what it costs in the dense branch."""
        extra: float | None = None
        options = []
        for level in levels:
            if level == 0:
                continue
            recipe = self._recipe(level, bits=bits)
            branch = self.library.get(self.index, recipe)
            error = errors.relative_error(branch)
            if extra is None:
                extra = self._divergence(branch)
            options.append(BranchOption(recipe, error, interpolate(error) + extra, stored_bytes(branch.linears)))
        return options

    def _factorised(
        self,
        layer: Layer,
        bits: Bits,
        options: Sequence[BranchOption],
        errors: BranchErrors,
        interpolate: "_Interpolation",
    ) -> list[BranchOption]:
        """Low ranks at full width that no narrower branch of the same format beats in both size and error."""
        writer = Branch(getattr(layer, self.kind)).linears[-1]
        same = [option for option in options if option.recipe.bits == bits]
        found = []
        for rank in low_ranks(writer.inputs, writer.outputs):
            recipe = self._recipe(None, rank=rank, bits=bits)
            branch = self.library.get(self.index, recipe)
            error, size = errors.relative_error(branch), stored_bytes(branch.linears)
            if not any(option.size_bytes <= size and option.error <= error for option in same):
                found.append(BranchOption(recipe, error, interpolate(error), size))
        return found

    def _recipe(self, level: int | None, *, bits: Bits, rank: int | None = None) -> BranchRecipe:
        dense = _levels(self.library.network.layers[self.index], self.kind)[0]
        width = None if level == dense else level
        kept: Bits = 32 if level == 0 else bits
        if self.kind == "attention":
            return AttentionRecipe(heads=width, rank=rank, bits=kept)
        return FeedForwardRecipe(intermediate_size=width, rank=rank, bits=kept)

    def _errors(self, layer: Layer) -> BranchErrors:
        return BranchErrors(layer, self.kind, self.library.calibration, self.library.recipe.criterion)

    def _divergence(self, branch: Branch) -> float:
        return self.model.divergence({(self.index, self.kind): branch})


class _Interpolation:
    """Divergence as a never decreasing, piecewise linear function of the error."""

    def __init__(self, points: Sequence[tuple[float, float]]) -> None:
        ordered = sorted(points)
        self._errors = np.array([error for error, _ in ordered])
        self._divergences = np.maximum.accumulate([divergence for _, divergence in ordered])

    def __call__(self, error: float) -> float:
        return float(np.interp(error, self._errors, self._divergences))


def _levels(layer: Layer, kind: str) -> tuple[int, ...]:
    if kind == "attention":
        assert layer.attention is not None
        return head_levels(layer.attention.heads)
    assert layer.feed_forward is not None
    return width_levels(layer.feed_forward.intermediate_size)


def _fixed_bytes(network: EncoderNetwork) -> int:
    everything = sum(tensor.numel() for tensor in named_tensors(network).values()) * 4
    branches = sum(
        stored_bytes(Branch(getattr(layer, kind)).linears)
        for layer in network.layers
        for kind in ("attention", "feed_forward")
    )
    return everything - branches
