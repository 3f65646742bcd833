"""Self-attention, in the forms that a graph recipe can ask for.

Shapes: ``B`` batch, ``S`` sequence, ``Q`` query positions (``S``, or 1 where only the first token is read), ``h``
heads, ``d`` head size, ``A = h * d``.
"""

import math

import torch

from compressors.export.onnx.attention_products import emit_rounded_mixture
from compressors.export.onnx.attention_products import emit_rounded_scores
from compressors.export.onnx.builder import MICROSOFT
from compressors.export.onnx.context import Context
from compressors.export.onnx.embeddings import emit_mask
from compressors.export.onnx.embeddings import emit_sequence_length
from compressors.export.onnx.embeddings import emit_sequence_shape
from compressors.export.onnx.linear import emit_linear
from compressors.export.onnx.one_query import emit_one_query
from compressors.forward import fold_value_bias
from compressors.network import Attention
from compressors.network import Linear


def emit_attention(context: Context, source: str, queries: str, attention: Attention, name: str) -> str:
    """Write one attention branch; returns its output without the residual.

    Args:
        context: The graph under construction.
        source: Hidden states that keys and values are computed from.
        queries: Hidden states that queries are computed from: ``source``, or its first token.
        attention: The branch.
        name: Prefix of the names of all values.
    """
    if source != queries and context.graph.merged_keys and not _few_bits(attention):
        query = emit_linear(context, queries, _scaled(attention.query, attention.head_size), f"{name}.query")
        mixed = emit_one_query(context, source, query, attention, name)
        return emit_linear(context, mixed, fold_value_bias(attention).output, f"{name}.output")
    query, key, value = _project(context, source, queries, attention, name)
    if context.flat:
        mixed = _sequence_first(context, query, key, value, attention, name, one_query=source != queries)
    elif context.contrib and context.graph.fused_attention:
        mixed = _fused(context, query, key, value, attention, name, one_query=source != queries)
    else:
        mixed = _batch_first(context, query, key, value, attention, name)
    return emit_linear(context, mixed, fold_value_bias(attention).output, f"{name}.output")


def _few_bits(attention: Attention) -> bool:
    """Whether keys or values are stored in blocks along the inputs, as only the product over all tokens reads them."""
    return attention.key.bits < 8 or attention.value.bits < 8


def _project(context: Context, source: str, queries: str, attention: Attention, name: str) -> tuple[str, str, str]:
    """Write the three projections, in as few products as the recipe and the factors allow."""
    builder = context.builder
    query, key, value = _scaled(attention.query, attention.head_size), attention.key, attention.value
    key = Linear(key.weight, None, key.left, key.right, key.bits)
    value = Linear(value.weight, None, value.left, value.right, value.bits)
    together = [("query", query), ("key", key), ("value", value)]
    outputs: dict[str, str] = {}
    if source != queries:
        outputs["query"] = emit_linear(context, queries, query, f"{name}.query")
        together = together[1:]
    if context.graph.packed_qkv and all(part.weight is not None for _, part in together):
        packed = emit_linear(context, source, _pack([part for _, part in together]), f"{name}.packed")
        names = [f"{name}.{label}" for label, _ in together]
        builder.nodes("Split", [packed], names, axis=-1, num_outputs=len(names))
        outputs.update(zip((label for label, _ in together), names, strict=True))
    else:
        for label, part in together:
            outputs[label] = emit_linear(context, source, part, f"{name}.{label}")
    return outputs["query"], outputs["key"], outputs["value"]


def _scaled(query: Linear, head_size: int) -> Linear:
    """Fold the factor ``1 / sqrt(head_size)`` of the scores into the query projection."""
    factor = 1.0 / math.sqrt(head_size)

    def times(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor * factor

    return Linear(times(query.weight), times(query.bias), times(query.left), query.right, query.bits)


def _pack(parts: list[Linear]) -> Linear:
    """Stack full linear layers of the same input along their outputs; a missing bias is zero."""
    weights = [part.weight for part in parts if part.weight is not None]
    biases = [
        part.bias if part.bias is not None else torch.zeros(weight.shape[0])
        for part, weight in zip(parts, weights, strict=True)
    ]
    bias = None if all(part.bias is None for part in parts) else torch.cat(biases)
    return Linear(torch.cat(weights), bias, bits=parts[0].bits)


def _batch_first(context: Context, query: str, key: str, value: str, attention: Attention, name: str) -> str:
    """``[B, S, A]`` -> ``[B, h, S, d]`` by transposition; works in every runtime."""
    builder = context.builder
    split = builder.constant([0, 0, attention.heads, attention.head_size])

    def heads(source: str, perm: list[int]) -> str:
        shaped = builder.node("Reshape", [source, split], f"{source}.heads")
        return builder.node("Transpose", [shaped], f"{source}.transposed", perm=perm)

    left, keys = heads(query, [0, 2, 1, 3]), heads(key, [0, 2, 1, 3])
    # A transposition of its own is what runtimes fold into the product.
    right = builder.node("Transpose", [keys], f"{key}.columns", perm=[0, 1, 3, 2])
    scores = builder.node("MatMul", [left, right], f"{name}.scores")
    masked = builder.node("Add", [scores, emit_mask(context)], f"{name}.masked")
    weights = builder.node("Softmax", [masked], f"{name}.weights", axis=-1)
    mixed = builder.node("MatMul", [weights, heads(value, [0, 2, 1, 3])], f"{name}.mixed")
    back = builder.node("Transpose", [mixed], f"{name}.mixed.transposed", perm=[0, 2, 1, 3])
    merge = builder.constant([0, 0, attention.heads * attention.head_size])
    return builder.node("Reshape", [back, merge], f"{name}.context")


def _sequence_first(
    context: Context, query: str, key: str, value: str, attention: Attention, name: str, *, one_query: bool
) -> str:
    """``[S * B, A]`` -> ``[S, B * h, d]`` by a view; the products read it through strides."""
    builder = context.builder
    split = emit_sequence_shape(context, attention.head_size)
    split_query = builder.constant([1, -1, attention.head_size]) if one_query else split
    rounded = context.quantization.attention_products and attention.output.bits == 8
    if rounded:
        scores = emit_rounded_scores(context, query, key, split_query, split, name)
    else:
        left = builder.node("Reshape", [query, split_query], f"{query}.heads")
        right = builder.node("Reshape", [key, split], f"{key}.heads")
        views = {"transB": 1, "transBatchA": 1, "transBatchB": 1}
        scores = builder.node("FusedMatMul", [left, right], f"{name}.scores", domain=MICROSOFT, **views)
    masked = builder.node("Add", [scores, _mask_per_head(context, attention.heads)], f"{name}.masked")
    weights = builder.node("Softmax", [masked], f"{name}.weights", axis=-1)
    if rounded:
        mixed = emit_rounded_mixture(context, weights, value, split, name)
    else:
        values = builder.node("Reshape", [value, split], f"{value}.heads")
        mixed = builder.node("FusedMatMul", [weights, values], f"{name}.mixed", domain=MICROSOFT, transBatchB=1)
    back = builder.node("Transpose", [mixed], f"{name}.mixed.transposed", perm=[1, 0, 2])
    merge = builder.constant([-1, attention.heads * attention.head_size])
    return builder.node("Reshape", [back, merge], f"{name}.context")


def _mask_per_head(context: Context, heads: int) -> str:
    """The additive mask for scores ``[B * h, Q, S]``: ``[B * h, 1, S]``, written once for each number of heads."""
    builder = context.builder
    key = f"mask.{heads}"
    if key not in context.memo:
        # [B, 1, 1, S] -> [B, h, 1, S] -> [B * h, 1, S]
        wide = builder.node("Expand", [emit_mask(context), builder.constant([1, heads, 1, 1])], f"{key}.wide")
        length = context.builder.node("Shape", ["attention_mask"], f"{key}.length", start=1)
        shape = builder.node("Concat", [builder.constant([-1, 1]), length], f"{key}.shape", axis=0)
        context.memo[key] = builder.node("Reshape", [wide, shape], key)
    return context.memo[key]


def _fused(
    context: Context, query: str, key: str, value: str, attention: Attention, name: str, *, one_query: bool
) -> str:
    """ONNX Runtime's ``MultiHeadAttention`` on ``[B, S, A]``; it wants the mask of every query written out."""
    builder = context.builder
    mask = emit_mask(context)
    if not one_query:
        if "mask.square" not in context.memo:
            inputs = [builder.constant([1, 1]), emit_sequence_length(context), builder.constant([1])]
            shape = builder.node("Concat", inputs, "mask.square.shape", axis=0)
            context.memo["mask.square"] = builder.node("Expand", [mask, shape], "mask.square")
        mask = context.memo["mask.square"]
    return builder.node(
        "MultiHeadAttention",
        [query, key, value, "", "", mask],
        f"{name}.context",
        domain=MICROSOFT,
        num_heads=attention.heads,
        scale=1.0,
    )
