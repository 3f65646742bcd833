"""Networks whose only purpose is to be timed: every layer the same, one branch alone.

Their outputs mean nothing. Kernels do not look at values, so slices of the dense weights are as good as solved ones.
"""

from collections.abc import Sequence
from typing import Literal

from compressors.network import Attention
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear

Extent = Literal["all", "last", "none"]


def block_network(
    network: EncoderNetwork,
    *,
    heads: int = 0,
    width: int = 0,
    rank: int | None = None,
    bits: int = 32,
    extent: Extent = "all",
) -> EncoderNetwork:
    """Return a network whose layers keep ``heads`` heads and ``width`` channels, norms included.

    Args:
        network: The dense model.
        heads: Heads of each attention branch; 0: no attention.
        width: Channels of each feed-forward branch; 0: none.
        rank: Rank of all their matrices; ``None``: full.
        bits: Bit-width of all their matrices.
        extent: Which layers have the branches. ``none``: there are no layers at all, not even norms.
    """
    layers = []
    for position, layer in enumerate(network.layers):
        present = extent == "all" or position == len(network.layers) - 1
        layers.append(
            Layer(
                index=layer.index,
                attention=_attention(_source(network.layers, position, heads), heads, rank, bits) if present else None,
                attention_norm=layer.attention_norm,
                feed_forward=_feed_forward(_wide(network.layers, position, width), width, rank, bits)
                if present
                else None,
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


def _source(layers: Sequence[Layer], position: int, heads: int) -> Attention | None:
    """The layer's own attention, or that of another layer where it has too few heads."""
    found = [layers[position], *layers]
    return next((layer.attention for layer in found if layer.attention and layer.attention.heads >= heads), None)


def _wide(layers: Sequence[Layer], position: int, width: int) -> FeedForward | None:
    found = [layers[position], *layers]
    return next(
        (layer.feed_forward for layer in found if layer.feed_forward and layer.feed_forward.intermediate_size >= width),
        None,
    )


def _attention(source: Attention | None, heads: int, rank: int | None, bits: int) -> Attention | None:
    if source is None or heads == 0:
        return None
    rows = heads * source.head_size
    return Attention(
        query=_cut(source.query, rows, source.query.inputs, rank, bits),
        key=_cut(source.key, rows, source.key.inputs, rank, bits),
        value=_cut(source.value, rows, source.value.inputs, rank, bits),
        output=_cut(source.output, source.output.outputs, rows, rank, bits),
        heads=heads,
        head_size=source.head_size,
    )


def _feed_forward(source: FeedForward | None, width: int, rank: int | None, bits: int) -> FeedForward | None:
    if source is None or width == 0:
        return None
    return FeedForward(
        up=_cut(source.up, width, source.up.inputs, rank, bits),
        down=_cut(source.down, source.down.outputs, width, rank, bits),
        activation=source.activation,
    )


def _cut(linear: Linear, outputs: int, inputs: int, rank: int | None, bits: int) -> Linear:
    weight = linear.matrix()[:outputs, :inputs].contiguous()
    bias = None if linear.bias is None else linear.bias[:outputs].contiguous()
    if rank is None or rank >= min(outputs, inputs):
        return Linear(weight, bias, bits=bits)
    return Linear(None, bias, weight[:, :rank].contiguous(), weight[:rank].contiguous(), bits)
