"""Networks whose only purpose is to be timed: every layer the same.

Their outputs mean nothing, so slices of the dense weights are as good as solved ones; but they must be tame numbers.
"""

from collections.abc import Sequence
from typing import Literal

from compressors.network import Attention
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe

SOFTENING = 0.1
"""Factor on the queries. Peaked attention yields denormal numbers, with which a CPU takes several times as long."""

Extent = Literal["all", "last", "none"]


def block_network(
    network: EncoderNetwork,
    attention: AttentionRecipe,
    feed_forward: FeedForwardRecipe,
    extent: Extent = "all",
) -> EncoderNetwork:
    """Return a network whose layers are all alike, norms included.

    Args:
        network: The dense model.
        attention: Heads (0: no attention), rank and bits of every layer's attention.
        feed_forward: Width (0: none), rank and bits of every layer's feed-forward branch.
        extent: Which layers have the branches. ``none``: there are no layers at all, not even norms.
    """
    layers = []
    for position, layer in enumerate(network.layers):
        present = extent == "all" or position == len(network.layers) - 1
        nearest = [layer, *network.layers]
        layers.append(
            Layer(
                index=layer.index,
                attention=_attention(nearest, attention) if present else None,
                attention_norm=layer.attention_norm,
                feed_forward=_feed_forward(nearest, feed_forward) if present else None,
                feed_forward_norm=layer.feed_forward_norm,
            )
        )
    return EncoderNetwork(
        model_type=network.model_type,
        embeddings=network.embeddings,
        layers=[] if extent == "none" else layers,
        head=network.head,
        labels=network.labels,
        max_sequence_length=network.max_sequence_length,
    )


def _attention(layers: Sequence[Layer], recipe: AttentionRecipe) -> Attention | None:
    """Cut the attention out of the first layer that has enough heads."""
    heads = recipe.heads
    if not heads:
        return None
    source = next(layer.attention for layer in layers if layer.attention and layer.attention.heads >= heads)
    rows, rank, bits = heads * source.head_size, recipe.rank, recipe.bits
    query = Linear(source.query.matrix() * SOFTENING, source.query.bias)
    return Attention(
        query=_cut(query, rows, source.query.inputs, rank, bits),
        key=_cut(source.key, rows, source.key.inputs, rank, bits),
        value=_cut(source.value, rows, source.value.inputs, rank, bits),
        output=_cut(source.output, source.output.outputs, rows, rank, bits),
        heads=heads,
        head_size=source.head_size,
    )


def _feed_forward(layers: Sequence[Layer], recipe: FeedForwardRecipe) -> FeedForward | None:
    width = recipe.intermediate_size
    if not width:
        return None
    found = (layer.feed_forward for layer in layers)
    source = next(branch for branch in found if branch and branch.intermediate_size >= width)
    return FeedForward(
        up=_cut(source.up, width, source.up.inputs, recipe.rank, recipe.bits),
        down=_cut(source.down, source.down.outputs, width, recipe.rank, recipe.bits),
        activation=source.activation,
    )


def _cut(linear: Linear, outputs: int, inputs: int, rank: int | None, bits: int) -> Linear:
    weight = linear.matrix()[:outputs, :inputs].contiguous()
    bias = None if linear.bias is None else linear.bias[:outputs].contiguous()
    if rank is None or rank >= min(outputs, inputs):
        return Linear(weight, bias, bits=bits)
    return Linear(None, bias, weight[:, :rank].contiguous(), weight[:rank].contiguous(), bits)
