"""The option database as arrays: what the solver and the surrogate work on."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from compressors.description import Anatomy
from compressors.options.levels import width_levels
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from search.latency_model import LatencyModel
from search.options import Branch
from search.options import BranchTable
from search.options import Merge
from search.options import Option
from search.options import OptionDatabase
from search.options import Precision
from search.options import Unit
from search.solver import FloatArray
from search.space import SearchSpace

FormatPolicy = str
"""``any``, or one of the number formats that all branches shall have: ``int8`` or ``float``."""

_Spelling = tuple[int, int, float, str, str, int]


@dataclass(frozen=True)
class UnitOptions:
    """One unit with the options that the space allows; arrays have one entry per option.

    Attributes:
        layer: Index of the layer.
        branch: Attention or feed-forward.
        options: The options.
        error: Relative squared error on the calibration data.
        divergence: End-to-end divergence, estimated from the error where it was not evaluated.
        size: Stored bytes.
    """

    layer: int
    branch: Branch
    options: tuple[Option, ...]
    error: FloatArray
    divergence: FloatArray
    size: FloatArray


def allowed_units(database: OptionDatabase, space: SearchSpace, table: BranchTable | None = None) -> list[UnitOptions]:
    """Return the units with the options that the job's space allows and whose widths the device rewards.

    Args:
        database: Has the widths for every step that a device may have.
        space: Of the job.
        table: Of the device, if it was measured.
    """
    table = table or BranchTable(fixed={}, entries={})
    units = []
    for unit in database.units:
        rewarded = _rewarded(unit, space.anatomy, table, space.defaults.precision)
        options = tuple(option for option in rewarded if _allowed(option, unit, space))
        if options:
            error = np.array([option.error for option in options])
            size = np.array([float(option.size_bytes) for option in options])
            units.append(UnitOptions(unit.layer, unit.branch, options, error, _divergences(options, error), size))
    return units


def unit_times(unit: UnitOptions, model: LatencyModel, precision: Precision, *, first_token: bool) -> FloatArray:
    """Return the predicted time of each option of a unit."""
    times = [
        model.branch_time(option.recipe, unit.layer, precision, first_token=first_token) for option in unit.options
    ]
    return np.array(times)


@dataclass(frozen=True)
class LayerDrop:
    """A layer with both its units, which may go as a whole; its normalisations go with it.

    Attributes:
        layer: Index of the layer.
        first: Index of the attention unit, which the feed-forward unit follows.
        removed: The option of either that is the branch being removed; both at once are the layer being gone.
        error: Sum of the two options' errors.
        divergence: End-to-end divergence of the model without the layer; the sum of the two options' where that was not
            evaluated.
    """

    layer: int
    first: int
    removed: tuple[int, int]
    error: float
    divergence: float


def layer_drops(units: Sequence[UnitOptions], divergences: Sequence[float]) -> list[LayerDrop]:
    """Return the layers that may go.

    Args:
        units: Units with their allowed options, in the order of the network.
        divergences: Of the model without a layer, for each layer; empty if unknown.
    """
    drops = []
    for first, (attention, feed_forward) in enumerate(pairwise(units)):
        one, other = _removed_option(attention), _removed_option(feed_forward)
        if attention.layer != feed_forward.layer or one is None or other is None:
            continue
        error = float(attention.error[one] + feed_forward.error[other])
        both = float(attention.divergence[one] + feed_forward.divergence[other])
        divergence = divergences[attention.layer] if divergences else both
        drops.append(LayerDrop(attention.layer, first, (one, other), error, divergence))
    return drops


def format_mask(unit: UnitOptions, policy: FormatPolicy) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mark the options that a policy allows; removed branches have every format."""
    return np.array(
        [policy == "any" or _removed(o) or (policy == "int8") == (o.recipe.bits < 16) for o in unit.options], dtype=bool
    )


def allowed_merges(database: OptionDatabase, space: SearchSpace) -> tuple[Merge, ...]:
    """Return merges of layers that keep the outputs closer than dropping as many layers, which saves the same time."""
    spare = space.anatomy.layers - space.min_layers if "depth" in space.kinds else 0
    return tuple(merge for merge in database.merges if merge.divergence < merge.dropped and merge.merged <= spare)


def merge_mask(unit: UnitOptions, merge: Merge) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mark the options that a merge leaves: whole branches where layers are merged, none where they came from."""
    if merge.layer < unit.layer <= merge.layer + merge.merged:
        return np.array([_removed(option) for option in unit.options], dtype=bool)
    if unit.layer == merge.layer:
        return np.array([_is_whole(option) for option in unit.options], dtype=bool)
    return np.ones(len(unit.options), dtype=bool)


def nested_mask(
    unit: UnitOptions, anatomy: Anatomy, parent: Option | None = None
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Mark the options that can be cut from a parent, in whatever number format, and cut further.

    What is factorised or gone cannot be cut further.

    Args:
        unit: The unit.
        anatomy: Of the dense model.
        parent: The unit's option in the parent; ``None``: the dense one.
    """

    def width(option: Option) -> int:
        full, level = _full(unit.layer, unit.branch, anatomy), option.recipe.level
        return full if level is None else level

    widest = width(parent) if parent is not None else _full(unit.layer, unit.branch, anatomy)
    return np.array([_is_plain(option) and 0 < width(option) <= widest for option in unit.options], dtype=bool)


def assemble(units: Sequence[UnitOptions], choice: Sequence[int], dense: Recipe, merge: Merge | None = None) -> Recipe:
    """Return ``dense`` with the chosen option in each unit, and with layers merged."""
    layers = list(dense.layers)
    for unit, index in zip(units, choice, strict=True):
        field = "attention" if unit.branch == "attention" else "feed_forward"
        layers[unit.layer] = layers[unit.layer].model_copy(update={field: unit.options[index].recipe})
    if merge is not None:
        layers[merge.layer] = layers[merge.layer].model_copy(update={"merged": merge.merged})
    return dense.model_copy(update={"layers": tuple(layers)})


class Locator:
    """Finds the options that canonical recipes use.

    Args:
        units: The units.
        anatomy: Shape of the dense model.
    """

    def __init__(self, units: Sequence[UnitOptions], anatomy: Anatomy) -> None:
        self._units, self._anatomy = units, anatomy
        self._indices: list[dict[_Spelling, int]] = []
        for unit in units:
            spellings = [_spelling(option.recipe, unit, anatomy) for option in unit.options]
            # Of options that are spelled alike, the first one counts.
            self._indices.append({spelling: index for index, spelling in reversed([*enumerate(spellings)])})

    def locate(self, recipe: Recipe) -> tuple[int, ...] | None:
        """Return the option of each unit that a recipe uses, or ``None`` if one is not in the database."""
        if any(layer.merged for layer in recipe.layers):
            return None
        choice = []
        for unit, indices in zip(self._units, self._indices, strict=True):
            branch = _branch_of(recipe.layers[unit.layer], unit.branch)
            found = indices.get(_spelling(branch, unit, self._anatomy))
            if found is None:
                return None
            choice.append(found)
        return tuple(choice)


def _allowed(option: Option, unit: Unit, space: SearchSpace) -> bool:
    recipe, kinds = option.recipe, set(space.kinds)
    full = _full(unit.layer, unit.branch, space.anatomy)
    width = recipe.level
    needed = set()
    if width is not None and width < full:
        needed.add("depth" if width == 0 else "heads" if unit.branch == "attention" else "ffn")
    if recipe.rank is not None:
        needed.add("rank")
    if recipe.sparsity:
        needed.add("sparsity")
    if recipe.bits < 32:
        needed.add("bits")
    return needed <= kinds and (recipe.bits in space.solver_bits or width == 0)


def _rewarded(unit: Unit, anatomy: Anatomy, table: BranchTable, precision: Precision) -> list[Option]:
    """Return the options whose widths are worth having on the device, in the arithmetic that it is fastest in.

    Branches that are only narrower have the levels for its step, where the database has all of these: of others it has
    neighbours that are hardly different. All other options have multiples of the step.
    """
    if unit.branch == "attention":
        return list(unit.options)
    full = _full(unit.layer, unit.branch, anatomy)
    known = {(option.recipe.bits, option.recipe.level) for option in unit.options if _is_plain(option)}
    levels: dict[int, set[int]] = {}
    for bits, _ in known:
        wanted = set(width_levels(full, table.width_step(bits, precision)))
        levels[bits] = wanted if all((bits, width) in known for width in wanted - {full, 0}) else set()

    def fits(option: Option) -> bool:
        width, bits = option.recipe.level, option.recipe.bits
        if width is None or width in (full, 0):
            return True
        if _is_plain(option) and levels[bits]:
            return width in levels[bits]
        return width % table.width_step(bits, precision) == 0

    return [option for option in unit.options if fits(option)]


def _divergences(options: Sequence[Option], error: FloatArray) -> FloatArray:
    """Fill the gaps between evaluated divergences: in proportion to the error, with the factor interpolated."""
    known = sorted(
        (e, o.divergence / e) for o, e in zip(options, error, strict=True) if o.divergence is not None and e > 0
    )
    if not known:
        return error
    points, factors = [e for e, _ in known], [f for _, f in known]
    distinct = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(points)) if b > a)]
    estimated = error * np.interp(error, [points[i] for i in distinct], [factors[i] for i in distinct])
    return np.array([e if o.divergence is None else o.divergence for o, e in zip(options, estimated, strict=True)])


def _branch_of(layer: LayerRecipe, branch: Branch) -> BranchRecipe:
    if layer.removed:
        return AttentionRecipe(heads=0) if branch == "attention" else FeedForwardRecipe(intermediate_size=0)
    return layer.attention if branch == "attention" else layer.feed_forward


def _spelling(recipe: BranchRecipe, unit: UnitOptions, anatomy: Anatomy) -> _Spelling:
    full, width = _full(unit.layer, unit.branch, anatomy), recipe.level
    kept = full if width is None else width
    if kept == 0:
        return (0, 0, 0.0, "", "", 32)
    zeros = (recipe.mask, recipe.pattern) if recipe.sparsity else ("", "")
    return (kept, recipe.rank or 0, recipe.sparsity, *zeros, recipe.bits)


def _full(layer: int, branch: Branch, anatomy: Anatomy) -> int:
    return anatomy.heads[layer] if branch == "attention" else anatomy.intermediate_size[layer]


def _is_plain(option: Option) -> bool:
    return option.recipe.rank is None and option.recipe.sparsity == 0


def _is_whole(option: Option) -> bool:
    return option.recipe.level is None and _is_plain(option)


def _removed(option: Option) -> bool:
    return option.recipe.level == 0


def _removed_option(unit: UnitOptions) -> int | None:
    return next((index for index, option in enumerate(unit.options) if _removed(option)), None)
