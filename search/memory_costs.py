"""What a branch adds to the memory of a model, before any candidate was measured: its stored bytes."""

from dataclasses import dataclass
from functools import cached_property

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from search.branch_costs import branch_weights
from search.options import Precision
from search.remembered import context_key

FLOAT_BITS = 32


@dataclass(frozen=True)
class StoredCosts:
    """Memory in proportion to stored weights, as fractions of the dense fp32 model's.

    The latency table knows nothing about memory. Activations and the runtime's own buffers are left to
    :class:`search.latency_model.LatencyModel`, which corrects these fractions by what was measured.
    """

    anatomy: Anatomy
    measured: bool = False
    standard_error: float = 0.0
    model_error: float = 0.0

    @cached_property
    def key(self) -> str:
        """See :class:`search.branch_costs.BranchCosts`."""
        return f"stored:{context_key(self.anatomy)}"

    def fixed(self, precision: Precision) -> float:
        """See :class:`search.branch_costs.BranchCosts`: the share of the embeddings, the norms and the head."""
        return max(0.0, 1.0 - self._dense_branches / self.anatomy.parameters)

    def layer(self, precision: Precision) -> float:
        """See :class:`search.branch_costs.BranchCosts`; norms weigh next to nothing."""
        return 0.0

    def branch(self, recipe: BranchRecipe, layer: int, precision: Precision, *, first_token: bool) -> float:
        """See :class:`search.branch_costs.BranchCosts`; neither arithmetic nor position change what is stored."""
        return branch_weights(recipe, self.anatomy, layer) * recipe.bits / FLOAT_BITS / self.anatomy.parameters

    @cached_property
    def _dense_branches(self) -> float:
        return sum(
            branch_weights(recipe, self.anatomy, layer)
            for layer in range(self.anatomy.layers)
            for recipe in (AttentionRecipe(), FeedForwardRecipe())
        )
