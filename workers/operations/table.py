"""The latency table: what every branch adds to the time of a whole graph on this device, at this workload."""

import time
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict

from compressors.description import Anatomy
from compressors.options.levels import low_ranks
from compressors.recipe import AttentionRecipe
from compressors.recipe import Bits
from compressors.recipe import FeedForwardRecipe
from infra.database.models import JsonObject
from profilers.table import race_many
from profilers.table import settle
from profilers.types import Artifact
from profilers.types import Capabilities
from profilers.types import Effort
from profilers.types import Estimate
from search.options import BranchTable
from search.options import Precision
from search.options import latency_key
from search.prepared import GraphDefaults
from workers.operations.formats import branch_bits
from workers.operations.inputs import JobInputs
from workers.operations.measure import stand
from workers.runner.operation import OperationContext

FINE = (1 / 24, 1 / 12, 1 / 6, 1 / 4, 1 / 3, 1 / 2, 3 / 4, 1.0)
"""Widths that are timed in the number format that the search will mostly use, as fractions of the full width."""
ALL_HEADS = 16
"""Up to so many heads every count is timed in that format: odd counts cost more than their neighbours suggest."""
COARSE = (1 / 6, 1 / 2, 1.0)
"""The same in any other format."""
MULTIPLE = 32
"""Widths of feed-forward branches are multiples of this."""
EFFORT = Effort(half_width=0.02, seconds=5.0, total_seconds=75.0, min_blocks=10, control_every=2, retreats=1)
LEAST_SECONDS = 15.0
"""Below this the intervals are too wide to steer by."""


class Block(BaseModel):
    """A model that is timed: the same branch in every layer, or only in the last, and the norms of all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: int = 0
    width: int = 0
    rank: int | None = None
    bits: Bits = 32
    precision: Precision = "f32"
    extent: Literal["all", "last", "none"] = "all"
    """``none``: not even norms."""
    first_token: bool = False
    """The last layer is computed for the first token only."""

    @property
    def name(self) -> str:
        """For file names."""
        position = "first" if self.first_token else self.extent
        return f"{position}-{self.heads}-{self.width}-r{self.rank or 0}-b{self.bits}-{self.precision}"


def plan(anatomy: Anatomy, capabilities: Capabilities, defaults: GraphDefaults) -> list[Block]:
    """Return the models to time: some 25, so that every option of a branch lies between two of them."""
    main = Block(bits=8) if 8 in branch_bits(capabilities, defaults) else Block(precision=defaults.precision)
    heads, width = max(anatomy.heads), max(anatomy.intermediate_size)
    blocks = [Block(precision=defaults.precision), Block(precision=defaults.precision, extent="none")]
    for form in [main] if main == Block() else [main, Block()]:
        shares = FINE if form == main else COARSE
        counts = list(range(1, heads + 1)) if form == main and heads <= ALL_HEADS else _counts(heads, shares, 1)
        blocks += [form.model_copy(update={"heads": count}) for count in counts]
        blocks += [form.model_copy(update={"width": count}) for count in _counts(width, shares, MULTIPLE)]
        if anatomy.task == "sequence-classification" and defaults.graph.first_token_head:
            blocks += _last_layer(form, heads, width)
    if main.bits == 32 and capabilities.low_rank:
        blocks += _low_rank(main, anatomy, heads, width)
    return blocks


def table(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "anatomy", "blocks": [{"block", "artifact"}], "max_seconds"} -> {"latency_table", ...}``."""
    inputs = JobInputs.model_validate(arguments["inputs"])
    anatomy = Anatomy.model_validate(arguments["anatomy"])
    blocks = {
        Block.model_validate(entry["block"]): Artifact.model_validate(entry["artifact"])
        for entry in arguments["blocks"]
    }
    context.progress({"doing": "timing building blocks", "of": len(blocks)})
    open_stand = stand(inputs, context)
    started = time.monotonic()
    artifacts = {block.name: artifact for block, artifact in blocks.items()}
    effort = EFFORT.model_copy(update={"total_seconds": _limit(arguments["max_seconds"])})
    ratios = race_many(open_stand.session, open_stand.reference, artifacts, effort, inputs.seed)
    found = branch_table({block: ratios[block.name] for block in blocks}, anatomy)
    return {
        "latency_table": found.model_dump(mode="json"),
        "table_seconds": round(time.monotonic() - started, 3),
    }


def _limit(max_seconds: float | None) -> float:
    assert EFFORT.total_seconds is not None
    if max_seconds is None:
        return EFFORT.total_seconds
    return min(EFFORT.total_seconds, max(LEAST_SECONDS, max_seconds))


def branch_table(ratios: Mapping[Block, Estimate], anatomy: Anatomy) -> BranchTable:
    """Take the branches' times out of whole models' times.

    Args:
        ratios: Time of each block of :func:`plan`, relative to the dense reference.
        anatomy: Of the dense model.
    """
    bare = next(ratio for block, ratio in ratios.items() if block == Block(precision=block.precision))
    empty = next(ratio for block, ratio in ratios.items() if block.extent == "none")
    curves: dict[tuple[str, int, int, Precision], dict[int, Estimate]] = {}
    entries: dict[str, float] = {}
    for block, ratio in ratios.items():
        if block.extent == "all" and (block.heads or block.width):
            branch = "attention" if block.heads else "feed_forward"
            family = (branch, block.rank or 0, block.bits, block.precision)
            time_ = _scaled(ratio, -bare.value, 1 / anatomy.layers)
            curves.setdefault(family, {})[block.heads or block.width] = time_
        elif block.extent == "last" and not block.width:
            entries[_key(block, "attention")] = max(0.0, ratio.value - bare.value)
        elif block.extent == "last":
            attention = ratios[block.model_copy(update={"width": 0})]
            entries[_key(block, "feed_forward")] = max(0.0, ratio.value - attention.value)
    for (branch, rank, bits, precision), curve in curves.items():
        for width, value in settle(curve).items():
            field = "heads" if branch == "attention" else "width"
            block = Block.model_validate({field: width, "rank": rank or None, "bits": bits, "precision": precision})
            entries[_key(block, branch)] = max(0.0, value)
    return BranchTable(
        fixed=bare.value,
        layer=max(0.0, bare.value - empty.value) / anatomy.layers,
        entries=entries,
        relative_error=max((ratio.high - ratio.low) / (2 * ratio.value) for ratio in ratios.values()),
    )


def _counts(full: int, shares: tuple[float, ...], multiple: int) -> list[int]:
    rounded = {min(full, max(multiple, round(full * share / multiple) * multiple)) for share in shares}
    return sorted(rounded) if full else []


def _last_layer(form: Block, heads: int, width: int) -> list[Block]:
    """Branches of the last layer where only the first token is read; their times are nearly linear in the width."""
    counts = _counts(heads, (1 / 6, 1.0), 1)
    last = form.model_copy(update={"extent": "last", "first_token": True})
    found = [last.model_copy(update={"heads": count}) for count in counts]
    return [*found, last.model_copy(update={"heads": heads, "width": width})] if heads and width else found


def _low_rank(form: Block, anatomy: Anatomy, heads: int, width: int) -> list[Block]:
    hidden, inner = anatomy.hidden_size, heads * anatomy.head_size
    return [
        form.model_copy(update={"rank": rank, field: full})
        for field, full, rows in (("heads", heads, inner), ("width", width, width))
        for rank in (low_ranks(rows, hidden) if full else ())
    ]


def _scaled(ratio: Estimate, shift: float, scale: float) -> Estimate:
    low, value, high = ((number + shift) * scale for number in (ratio.low, ratio.value, ratio.high))
    return Estimate(value=value, low=low, high=high)


def _key(block: Block, branch: str) -> str:
    recipe: AttentionRecipe | FeedForwardRecipe
    if branch == "attention":
        recipe = AttentionRecipe(heads=block.heads, rank=block.rank, bits=block.bits)
    else:
        recipe = FeedForwardRecipe(intermediate_size=block.width, rank=block.rank, bits=block.bits)
    return latency_key(recipe, full=0, precision=block.precision, first_token=block.first_token)
