"""Holds the latency table against whole models: the dense one and the smallest, between which all others lie."""

from collections.abc import Mapping

from compressors.description import Anatomy
from compressors.recipe import AttentionRecipe
from compressors.recipe import Bits
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from profilers.types import Capabilities
from profilers.types import Estimate
from search.branch_costs import TableCosts
from search.latency_model import LatencyModel
from search.options import BranchTable
from search.options import Precision
from search.options import WholeModel
from search.prepared import GraphDefaults
from workers.operations.formats import block_formats
from workers.operations.table_block import NO_ATTENTION
from workers.operations.table_block import NO_FEED_FORWARD
from workers.operations.table_block import Block

SMALLEST = 32
"""Width of the smallest model's feed-forward branches; it has one head a layer."""


def whole_models(anatomy: Anatomy, capabilities: Capabilities, defaults: GraphDefaults) -> list[Block]:
    """Return the dense model in every number format of the table, and the smallest in that of most candidates.

    They are what candidates are: where only the first token is read, nothing else is computed in the last layer.
    """
    heads, width = max(anatomy.heads), max(anatomy.intermediate_size)
    formats = block_formats(capabilities, defaults)
    shapes = [(heads, width, *number_format) for number_format in formats]
    shapes.append((min(1, heads), min(SMALLEST, width), *formats[0]))
    first_token = anatomy.task == "sequence-classification" and defaults.graph.first_token_head and heads > 0
    return [_whole(*shape, first_token=first_token) for shape in dict.fromkeys(shapes)]


def checked(table: BranchTable, measured: Mapping[Block, Estimate], anatomy: Anatomy) -> BranchTable:
    """Return the table with what it says of whole models and what these took.

    Args:
        table: Made of building blocks alone.
        measured: Times of :func:`whole_models`, relative to the dense reference.
        anatomy: Of the dense model.
    """
    model = LatencyModel(TableCosts(table, anatomy), anatomy)
    found = tuple(_check(block, ratio, model, anatomy) for block, ratio in measured.items())
    return table.model_copy(update={"checks": found})


def _whole(heads: int, width: int, bits: Bits, precision: Precision, *, first_token: bool) -> Block:
    return Block(
        attention=AttentionRecipe(heads=heads, bits=bits) if heads else NO_ATTENTION,
        feed_forward=FeedForwardRecipe(intermediate_size=width, bits=bits) if width else NO_FEED_FORWARD,
        precision=precision,
        extent="whole",
        first_token=first_token,
    )


def _check(block: Block, ratio: Estimate, model: LatencyModel, anatomy: Anatomy) -> WholeModel:
    layer = LayerRecipe(attention=block.attention, feed_forward=block.feed_forward)
    recipe = Recipe(
        layers=(layer,) * anatomy.layers,
        graph=GraphRecipe(first_token_head=block.first_token),
        precision=block.precision,
    )
    full = (max(anatomy.heads), max(anatomy.intermediate_size))
    widths = (block.attention.heads, block.feed_forward.intermediate_size)
    return WholeModel(
        name="dense" if widths == full else "smallest",
        bits=block.attention.bits if widths[0] else block.feed_forward.bits,
        precision=block.precision,
        predicted=model.predict(recipe).value,
        measured=ratio,
    )
