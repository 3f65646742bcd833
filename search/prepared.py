"""What the stages before the search found out, as the search reads it from ``job.prepared``."""

from typing import Any
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict

from compressors.description import Anatomy
from compressors.recipe import GraphRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.types import Capabilities
from search.options import BranchTable
from search.options import Explored
from search.options import OptionDatabase


class GraphDefaults(BaseModel):
    """The form in which this device runs any weights fastest; every proposed recipe is written in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    graph: GraphRecipe = GraphRecipe()
    """For candidates with integers, and for all where ``float_graph`` is not given."""
    float_graph: GraphRecipe | None = None
    """For candidates in floating point throughout."""
    quantization: QuantizationRecipe = QuantizationRecipe()
    precision: Literal["f32", "bf16"] = "f32"

    def form_of(self, recipe: Recipe) -> Literal["graph", "float_graph"]:
        """Return the field that a candidate's arithmetic belongs to."""
        present = [layer for layer in recipe.layers if not layer.removed]
        integers = any(branch.bits <= 8 for layer in present for branch in (layer.attention, layer.feed_forward))
        return "graph" if integers or self.float_graph is None else "float_graph"

    def graph_for(self, recipe: Recipe) -> GraphRecipe:
        """Return the graph that a candidate's arithmetic runs fastest in."""
        graph: GraphRecipe = getattr(self, self.form_of(recipe))
        return graph


class Prepared(BaseModel):
    """The part of ``job.prepared`` that the search depends on; other keys belong to other stages and are ignored.

    Attributes:
        anatomy: Shape of the dense model.
        capabilities: What the device runs and gains from.
        labelled: Whether quality is a labelled metric; otherwise it is closeness to the dense model.
        graph_defaults: The device's preferred graph.
        dense_size_bytes: Stored size of the dense fp32 artifact.
        label_notice: What the user should know of the labels, in words.
        calibration_notice: The same of the text for calibration.
        options: Option database for ``guided``.
        latency_table: Measured branch costs, if the device has been tabulated.
        explored: Combinations of options that were scored end to end; ``guided`` tries them first.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    anatomy: Anatomy
    capabilities: Capabilities
    labelled: bool = True
    graph_defaults: GraphDefaults = GraphDefaults()
    dense_size_bytes: int | None = None
    label_notice: str | None = None
    calibration_notice: str | None = None
    options: OptionDatabase | None = None
    latency_table: BranchTable | None = None
    explored: tuple[Explored, ...] = ()

    @classmethod
    def load(cls, payload: dict[str, Any] | None) -> "Prepared":
        """Parse ``job.prepared``.

        Raises:
            pydantic.ValidationError: If an earlier stage wrote something else.
        """
        return cls.model_validate(payload or {})
