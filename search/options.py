"""Building blocks as data: what each branch of the model may become, what it costs in time and in error.

A *branch* is one attention or one feed-forward block. Its options and their errors come from calibration
(:class:`OptionDatabase`), their times from the device (:class:`BranchTable`).
"""

from typing import Annotated
from typing import Literal
from typing import get_args

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field
from pydantic import field_validator

from compressors.options.levels import USUAL_STEP
from compressors.recipe import AttentionRecipe
from compressors.recipe import Bits
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import Recipe
from profilers.types import Estimate

Branch = Literal["attention", "feed_forward"]
Precision = Literal["f32", "bf16"]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Option(_Data):
    """One thing that a branch may become. Exactly one of the two recipes is given, that of the unit's branch."""

    attention: AttentionRecipe | None = None
    feed_forward: FeedForwardRecipe | None = None
    error: Annotated[float, Field(ge=0)]
    """Relative squared error of the branch's output on the calibration data; 0 is dense, 1 is removed."""
    divergence: Annotated[float, Field(ge=0)] | None = None
    """End-to-end divergence from the dense model when this unit alone is replaced, where it is known: evaluated at some
    levels, interpolated along the error between them."""
    size_bytes: Annotated[int, Field(ge=0)] = 0
    """Stored size of the branch's weights."""

    @property
    def recipe(self) -> BranchRecipe:
        """The recipe of the branch."""
        recipe = self.attention or self.feed_forward
        assert recipe is not None
        return recipe


class Unit(_Data):
    """A branch of one layer with all its options; the dense one is among them."""

    layer: Annotated[int, Field(ge=0)]
    branch: Branch
    options: Annotated[tuple[Option, ...], Field(min_length=1)]

    @property
    def name(self) -> str:
        """For example ``layer.3.attention``."""
        return f"layer.{self.layer}.{self.branch}"


class Merge(_Data):
    """Consecutive layers in one: what the later ones' weights differ by is added to the first, and they go.

    Attributes:
        layer: The layer that stays.
        merged: How many of the layers after it go into it.
        divergence: Of the model with only this done.
        dropped: The least divergence of dropping as many of the same layers in a row, which saves the same time.
    """

    layer: Annotated[int, Field(ge=0)]
    merged: Annotated[int, Field(ge=1)]
    divergence: Annotated[float, Field(ge=0)]
    dropped: Annotated[float, Field(ge=0)]


class OptionDatabase(_Data):
    """All units of a model, in the order of the network.

    Attributes:
        units: One entry per layer and branch.
        fixed_size_bytes: Stored size of everything that no unit holds (embeddings, norms, head).
        drops: End-to-end divergence of the model without a layer, for each layer: much less, or more, than what
            removing its two branches one by one comes to. Empty if it was not evaluated.
        merges: What merging layers does.
    """

    units: tuple[Unit, ...]
    fixed_size_bytes: int = 0
    drops: tuple[Annotated[float, Field(ge=0)], ...] = ()
    merges: tuple[Merge, ...] = ()


class Explored(_Data):
    """A combination of options that was scored end to end, without being built or measured.

    Attributes:
        recipe: Canonical recipe.
        ratio: Predicted latency ratio.
        divergence: From the dense model, of the torch module on texts of the calibration part that its statistics were
            not taken of. The evaluation uses none of them.
    """

    recipe: Recipe
    ratio: Annotated[float, Field(gt=0)]
    divergence: Annotated[float, Field(ge=0)]


class WidthStep(_Data):
    """In which steps the width of feed-forward branches is rewarded in one number format.

    Attributes:
        bits: Of the weights.
        precision: Floating-point arithmetic of the graph.
        base: Width of every layer's branch in the model that the times are relative to.
        times: The evidence: time of the same model with so many channels more, relative to it.
        step: What follows (:func:`profilers.width_step.finest_step`); ``None`` if the times do not tell.
    """

    bits: Bits
    precision: Precision
    base: Annotated[int, Field(gt=0)]
    times: dict[int, Estimate]
    step: int | None


class WholeModel(_Data):
    """A model that was timed beside the building blocks, to see how well these predict it.

    Attributes:
        name: ``dense`` or ``smallest``.
        bits: Of its weights.
        precision: Floating-point arithmetic of its graph.
        predicted: Its time by the table, more than 0.
        measured: Its time.
    """

    name: Literal["dense", "smallest"]
    bits: Bits
    precision: Precision
    predicted: Annotated[float, Field(gt=0)]
    measured: Estimate

    @property
    def error(self) -> float:
        """How far off it is, as a fraction of the prediction: the intervals of predictions are such fractions."""
        return self.measured.value / self.predicted - 1.0


class BranchTable(_Data):
    """Measured times, as fractions of the dense reference's time at the job's workload.

    Built from whole graphs, not from isolated kernels: ``fixed`` is a model whose branches are all removed, an entry
    is the difference that one branch makes.

    Attributes:
        fixed: Time of the model with every branch removed but all layers' norms present, by arithmetic.
        layer: Time of one layer's two norms and additions, by arithmetic; removing the whole layer saves this as well.
        entries: Time of one branch by its :func:`latency_key`.
        relative_error: Half-width of the widest 95 % interval of a whole graph's time, relative; 0 if unknown.
        checks: Whole models that the table was held against; none in tables of earlier versions.
        seconds: Time that the measurement was allowed to take.
        width_steps: Steps of the width, by number format; none in tables of earlier versions, and of narrow models.
    """

    fixed: dict[Precision, Annotated[float, Field(ge=0)]]
    layer: dict[Precision, Annotated[float, Field(ge=0)]] = {}
    entries: dict[str, float]
    relative_error: float = 0.0
    seconds: float = 0.0
    width_steps: tuple[WidthStep, ...] = ()
    checks: tuple[WholeModel, ...] = ()

    @field_validator("fixed", "layer", mode="before")
    @classmethod
    def _of_every_arithmetic(cls, value: object) -> object:
        """Tables of earlier versions have one number."""
        return dict.fromkeys(get_args(Precision), value) if isinstance(value, (int, float)) else value

    @property
    def prediction_error(self) -> float:
        """How far predictions of whole models may be off: by ``relative_error``, or by the largest of ``checks``."""
        return max([self.relative_error, *(abs(check.error) for check in self.checks)])

    def width_step(self, bits: int, precision: Precision) -> int:
        """Return the step of widths with such weights in a graph of an arithmetic; the usual one if unknown.

        The products of integers are the same under every floating-point arithmetic.
        """
        for entry in self.width_steps:
            if entry.bits == bits and (bits < 16 or entry.precision == precision) and entry.step is not None:
                return entry.step
        return USUAL_STEP


def latency_key(branch: BranchRecipe, *, full: int, precision: Precision = "f32", first_token: bool = False) -> str:
    """Name what determines a branch's time. Sparsity is not part of it: dense kernels do not see zeros.

    Args:
        branch: Recipe of the branch.
        full: Heads or channels of the dense branch, which ``None`` in the recipe stands for.
        precision: Floating-point arithmetic of the graph.
        first_token: The branch is computed for the first token only (last layer of a classifier).

    Returns:
        For example ``attention:6:rank=0:bits=8:f32`` or ``feed_forward.first_token:768:rank=64:bits=32:bf16``.
    """
    if isinstance(branch, AttentionRecipe):
        name, width = "attention", branch.heads
    else:
        name, width = "feed_forward", branch.intermediate_size
    family = f"{name}.first_token" if first_token else name
    return f"{family}:{full if width is None else width}:rank={branch.rank or 0}:bits={branch.bits}:{precision}"
