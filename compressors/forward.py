"""The forward pass of a network in pieces: plain functions on states, for code that needs what lies between.

States are float32 ``[batch, tokens, hidden]``; a mask is bool ``[batch, 1, 1, tokens]``, true at attended tokens.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from compressors.network import Attention
from compressors.network import FeedForward
from compressors.network import Linear
from compressors.network import Norm

LinearMap = Callable[[Tensor, Linear], Tensor]
"""``(values, linear) -> outputs``: :func:`apply_linear`, or what a file with few bits computes in its place."""


def apply_linear(values: Tensor, linear: Linear) -> Tensor:
    """Return ``linear`` of ``values [..., in]``, ``[..., out]``."""
    if linear.weight is not None:
        return functional.linear(values, linear.weight, linear.bias)
    assert linear.left is not None
    assert linear.right is not None
    return functional.linear(functional.linear(values, linear.right), linear.left, linear.bias)


def attention_context(attention: Attention, state: Tensor, mask: Tensor, linear: LinearMap = apply_linear) -> Tensor:
    """Return what the output projection reads, ``[batch, tokens, heads * head_size]``."""
    batch, length, _ = state.shape

    def heads(projection: Linear) -> Tensor:
        return linear(state, projection).view(batch, length, -1, attention.head_size).transpose(1, 2)

    query, key, value = heads(attention.query), heads(attention.key), heads(attention.value)
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    return context.transpose(1, 2).flatten(2)


def fold_value_bias(attention: Attention) -> Attention:
    """Return the same attention with the bias of the values in that of the output: rows of its weights sum to one."""
    shift, output = attention.value.bias, attention.output
    if shift is None:
        return attention
    moved = apply_linear(shift, replace(output, bias=None))
    bias = moved if output.bias is None else output.bias + moved
    value = replace(attention.value, bias=torch.zeros_like(shift))
    return replace(attention, value=value, output=replace(output, bias=bias))


def activate(branch: FeedForward, values: Tensor) -> Tensor:
    """Return the branch's activation of ``values``, same shape."""
    if branch.activation == "relu":
        return functional.relu(values)
    return functional.gelu(values, approximate="tanh" if branch.activation == "gelu_tanh" else "none")


def feed_forward_output(branch: FeedForward, state: Tensor, linear: LinearMap = apply_linear) -> Tensor:
    """Return what the branch adds to the states, same shape."""
    return linear(activate(branch, linear(state, branch.up)), branch.down)


def normalise(values: Tensor, norm: Norm) -> Tensor:
    """Return LayerNorm over the last axis, same shape."""
    return functional.layer_norm(values, norm.weight.shape, norm.weight, norm.bias, norm.epsilon)
