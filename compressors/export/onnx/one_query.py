"""Attention with one query, without computing keys and values of all tokens.

With a single query per head, ``query @ (hidden @ Wk.T).T`` is cheaper as ``(query @ Wk) @ hidden.T``, and
``weights @ (hidden @ Wv.T)`` as ``(weights @ hidden) @ Wv.T``: the two large products over all tokens become products
of ``heads`` rows, a fraction ``1 / head_size`` of the work. The same sums in another order; everything stays float32.

Shapes: ``B`` batch, ``S`` sequence, ``H`` hidden size, ``h`` heads, ``d`` head size, ``A = h * d``.
"""

import numpy as np

from compressors.export.onnx.context import Context
from compressors.export.onnx.embeddings import emit_mask
from compressors.export.onnx.embeddings import emit_sequence_shape
from compressors.export.onnx.linear import to_numpy
from compressors.export.onnx.quantization import quantize_per_channel
from compressors.network import Attention
from compressors.network import Linear


def emit_one_query(context: Context, source: str, query: str, attention: Attention, name: str) -> str:
    """Write the context ``[B, 1, A]`` (``[B, A]`` of flat rows) that one query of each head finds in ``source``.

    Args:
        context: The graph under construction.
        source: Hidden states of all tokens, ``[B, S, H]`` or flat rows ``[S * B, H]``.
        query: The projected and scaled queries, ``[B, 1, A]`` or ``[B, A]``.
        attention: The branch; its biases of key and value are not read.
        name: Prefix of the names of all values.
    """
    builder, heads = context.builder, attention.heads
    hidden = _hidden(context, source, attention.key, name)
    shaped = builder.node("Reshape", [query, builder.constant([-1, heads, attention.head_size])], f"{query}.heads")
    by_head = builder.node("Transpose", [shaped], f"{query}.by_head", perm=[1, 0, 2])
    keys = _matrix(context, attention.key, heads, f"{name}.key")
    # What each head's query looks for, as a direction in the hidden states.
    sought = builder.node("MatMul", [by_head, keys], f"{name}.sought")
    rows = builder.node("Transpose", [sought], f"{name}.sought.rows", perm=[1, 0, 2])
    columns = builder.node("Transpose", [hidden], f"{name}.columns", perm=[0, 2, 1])
    scores = builder.node("MatMul", [rows, columns], f"{name}.scores")
    mask = builder.node("Squeeze", [emit_mask(context), builder.constant([1])], f"{name}.mask")
    masked = builder.node("Add", [scores, mask], f"{name}.masked")
    weights = builder.node("Softmax", [masked], f"{name}.weights", axis=-1)
    found = builder.node("MatMul", [weights, hidden], f"{name}.found")
    found_by_head = builder.node("Transpose", [found], f"{name}.found.by_head", perm=[1, 0, 2])
    values = _matrix(context, attention.value, heads, f"{name}.value")
    values = builder.node("Transpose", [values], f"{name}.value.columns", perm=[0, 2, 1])
    mixed = builder.node("MatMul", [found_by_head, values], f"{name}.mixed")
    back = builder.node("Transpose", [mixed], f"{name}.mixed.rows", perm=[1, 0, 2])
    width = heads * attention.head_size
    merge = [-1, width] if context.flat else [-1, 1, width]
    return builder.node("Reshape", [back, builder.constant(merge)], f"{name}.context")


def _hidden(context: Context, source: str, key: Linear, name: str) -> str:
    """Hidden states as ``[B, S, H]``."""
    if not context.flat:
        return source
    builder = context.builder
    shaped = builder.node("Reshape", [source, emit_sequence_shape(context, key.inputs)], f"{name}.sequence_first")
    return builder.node("Transpose", [shaped], f"{name}.hidden", perm=[1, 0, 2])


def _matrix(context: Context, linear: Linear, heads: int, name: str) -> str:
    """Weights as ``[h, d, H]`` in float32, stored in the layer's bits; a runtime unpacks them once, when it loads."""
    builder = context.builder
    weight = to_numpy(linear.matrix())
    shape = builder.constant([heads, weight.shape[0] // heads, weight.shape[1]])
    if linear.bits == 8:
        values, scale = quantize_per_channel(weight, context.quantization.grid_bits(8))
        stored = builder.initializer(f"{name}.weight", values)
        factors = builder.initializer(f"{name}.weight.scale", np.ascontiguousarray(scale[:, None]))
        integers = builder.node("Cast", [stored], f"{name}.weight.integers", to=1)
        floats = builder.node("Mul", [integers, factors], f"{name}.weight.float")
    elif linear.bits == 16:
        stored = builder.initializer(f"{name}.weight", weight.astype(np.float16))
        floats = builder.node("Cast", [stored], f"{name}.weight.float", to=1)
    else:
        floats = builder.initializer(f"{name}.weight", weight)
    return builder.node("Reshape", [floats, shape], f"{name}.weight.heads")
