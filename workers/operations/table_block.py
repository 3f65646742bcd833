"""The models that a device is timed with: every layer the same."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from infra.database.models import JsonObject
from profilers.types import Artifact
from search.options import Branch
from search.options import Precision

NO_ATTENTION = AttentionRecipe(heads=0)
NO_FEED_FORWARD = FeedForwardRecipe(intermediate_size=0)
BRANCHES: tuple[Branch, ...] = ("attention", "feed_forward")


class Block(BaseModel):
    """A model that is timed: the same branches in every layer, or only in the last, and the norms of all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attention: AttentionRecipe = NO_ATTENTION
    feed_forward: FeedForwardRecipe = NO_FEED_FORWARD
    precision: Precision = "f32"
    extent: Literal["all", "last", "none", "whole"] = "all"
    """``none``: not even norms. ``whole``: all, as candidates are, to hold the table against."""
    first_token: bool = False
    """The last layer is computed for the first token only."""

    @property
    def name(self) -> str:
        """For file names."""
        attention, feed_forward = self.attention, self.feed_forward
        parts = (
            f"{self.extent}-first" if self.first_token else self.extent,
            f"h{attention.heads}r{attention.rank or 0}b{attention.bits}",
            f"w{feed_forward.intermediate_size}r{feed_forward.rank or 0}b{feed_forward.bits}",
            self.precision,
        )
        return "-".join(parts)

    def without(self, branch: Branch) -> "Block":
        """Return the same model without one kind of branch."""
        removed = NO_ATTENTION if branch == "attention" else NO_FEED_FORWARD
        return self.model_copy(update={branch: removed})


def artifacts_of(entries: Sequence[JsonObject]) -> dict[Block, Artifact]:
    """Read ``[{"block", "artifact"}]``."""
    return {Block.model_validate(entry["block"]): Artifact.model_validate(entry["artifact"]) for entry in entries}
