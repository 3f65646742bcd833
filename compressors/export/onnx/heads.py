"""Task heads: sequence classification and sentence embedding."""

import numpy as np

from compressors.export.onnx.builder import MICROSOFT
from compressors.export.onnx.context import Context
from compressors.export.onnx.embeddings import emit_batch_size
from compressors.export.onnx.embeddings import emit_sequence_shape
from compressors.export.onnx.feed_forward import emit_activation
from compressors.export.onnx.linear import emit_linear
from compressors.network import ClassificationHead
from compressors.network import PoolingHead

TINY = np.float32(1e-12)
"""Lower limit of a norm before division, as in ``torch.nn.functional.normalize``."""


def reads_first_token(head: ClassificationHead | PoolingHead) -> bool:
    """Whether the head needs nothing but the first token of the last hidden states."""
    return isinstance(head, ClassificationHead) or head.pooling == "cls"


def emit_first_token(context: Context, source: str, name: str) -> str:
    """Write the first token of ``source``, keeping its rank: ``[B, 1, H]``, or ``[B, H]`` of flat rows."""
    builder = context.builder
    if context.flat:
        inputs = [source, builder.constant([0]), emit_batch_size(context), builder.constant([0])]
    else:
        inputs = [source, builder.constant([0]), builder.constant([1]), builder.constant([1])]
    return builder.node("Slice", inputs, f"{name}.first")


def emit_classification(context: Context, first: str, head: ClassificationHead, hidden: int) -> str:
    """Write ``logits`` ``[B, labels]`` from the first token."""
    builder = context.builder
    value = first
    if not context.flat:
        value = builder.node("Reshape", [first, builder.constant([-1, hidden])], "head.input")
    if head.dense is not None:
        dense = emit_linear(context, value, head.dense, "head.dense")
        value = emit_activation(context, dense, head.activation, "head.activation")
    return emit_linear(context, value, head.classifier, "logits")


def emit_pooling(context: Context, source: str, head: PoolingHead, hidden: int) -> str:
    """Write ``sentence_embedding`` ``[B, H]``; ``source`` is the first token where the head reads only that."""
    builder = context.builder
    final = "sentence_embedding"
    pooled_name = "head.pooled" if head.normalize else final
    if head.pooling == "cls":
        pooled = builder.node("Reshape", [source, builder.constant([-1, hidden])], pooled_name)
    else:
        pooled = _mean(context, source, hidden, pooled_name, divide=not head.normalize)
    if not head.normalize:
        return pooled
    length = builder.node("ReduceL2", [pooled, builder.constant([1])], "head.length", keepdims=1)
    safe = builder.node("Max", [length, builder.constant(TINY)], "head.length.safe")
    return builder.node("Div", [pooled, safe], final)


def _mean(context: Context, source: str, hidden: int, output: str, *, divide: bool) -> str:
    """Sum (or mean) over attended tokens as one product with the mask, ``[B, 1, S] @ [B, S, H]``."""
    builder = context.builder
    attended = builder.node("Cast", ["attention_mask"], "head.attended", to=1)
    row = builder.node("Unsqueeze", [attended, builder.constant([1])], "head.attended.row")
    if context.flat:
        shaped = builder.node("Reshape", [source, emit_sequence_shape(context, hidden)], "head.sequence_first")
        total = builder.node("FusedMatMul", [row, shaped], "head.total", domain=MICROSOFT, transBatchB=1)
    else:
        total = builder.node("MatMul", [row, source], "head.total")
    if not divide:
        return builder.node("Squeeze", [total, builder.constant([1])], output)
    flat = builder.node("Squeeze", [total, builder.constant([1])], "head.total.flat")
    count = builder.node("ReduceSum", [attended, builder.constant([1])], "head.count", keepdims=1)
    safe = builder.node("Max", [count, builder.constant(np.float32(1e-9))], "head.count.safe")
    return builder.node("Div", [flat, safe], output)
