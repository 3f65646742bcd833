"""Layer collapse: several layers become one by adding up what their weights differ by."""

from collections.abc import Sequence

import torch
from torch import Tensor

from compressors.network import Attention
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear


def merge_layers(layers: Sequence[Layer]) -> Layer:
    """Return the first layer with the differences of the others added: LaCo (Yang et al. 2024, arXiv:2402.11187).

    ``theta* = theta_1 + sum_k (theta_k - theta_1)`` for every matrix and bias of both branches; the normalisations are
    those of the first layer. (The authors' notebook updates its copy in place, so that the sum telescopes and the last
    layer is left: that is removal of the earlier ones, which recipes say with ``removed``.)

    Args:
        layers: At least one, all of the same shape with both branches, not factorised.
    """
    first = layers[0]
    attentions = [layer.attention for layer in layers if layer.attention is not None]
    branches = [layer.feed_forward for layer in layers if layer.feed_forward is not None]
    assert len(attentions) == len(branches) == len(layers)
    return Layer(
        index=first.index,
        attention=Attention(
            query=_merge([attention.query for attention in attentions]),
            key=_merge([attention.key for attention in attentions]),
            value=_merge([attention.value for attention in attentions]),
            output=_merge([attention.output for attention in attentions]),
            heads=attentions[0].heads,
            head_size=attentions[0].head_size,
        ),
        attention_norm=first.attention_norm,
        feed_forward=FeedForward(
            up=_merge([branch.up for branch in branches]),
            down=_merge([branch.down for branch in branches]),
            activation=branches[0].activation,
        ),
        feed_forward_norm=first.feed_forward_norm,
    )


def _merge(linears: Sequence[Linear]) -> Linear:
    biases = [linear.bias for linear in linears if linear.bias is not None]
    bias = _sum_of_differences(biases) if len(biases) == len(linears) else linears[0].bias
    return Linear(_sum_of_differences([linear.matrix() for linear in linears]), bias, bits=linears[0].bits)


def _sum_of_differences(tensors: Sequence[Tensor]) -> Tensor:
    stacked = torch.stack(list(tensors)).double()
    return (stacked[0] + (stacked[1:] - stacked[0]).sum(0)).float()
