"""The two activation x activation products of attention in int8, for flat rows ``[S * B, A]``.

Queries and attention weights are uint8, keys and values int8 (the combination with a fast kernel), each with one scale
for the whole tensor. It pays where the processor multiplies 8-bit matrices much faster than it rounds and moves data.
"""

import numpy as np

from compressors.export.onnx.builder import MICROSOFT
from compressors.export.onnx.context import Context
from compressors.export.onnx.linear import quantize_at_run_time
from compressors.methods.rounding import largest_value

_UNIT_STEP = np.float32(1.0 / 255.0)
"""Step of the uint8 grid of attention weights, which lie between 0 and 1."""


def emit_rounded_scores(context: Context, query: str, key: str, query_shape: str, key_shape: str, name: str) -> str:
    """Write the scores ``[B * h, Q, S]`` of ``query @ key.T``; the shapes view rows as ``[positions, B * h, d]``."""
    builder = context.builder
    rounded, step, zero = quantize_at_run_time(context, query)
    left = _arrange(context, rounded, query_shape, [1, 0, 2])
    right, key_step = _signed(context, key, key_shape, [1, 2, 0])
    return builder.node("MatMulIntegerToFloat", [left, right, step, key_step, zero], f"{name}.scores", domain=MICROSOFT)


def emit_rounded_mixture(context: Context, weights: str, value: str, shape: str, name: str) -> str:
    """Write ``weights [B * h, Q, S] @ value``, ``[B * h, Q, d]``."""
    builder = context.builder
    step, zero = builder.constant(_UNIT_STEP), builder.constant(np.uint8(0))
    left = builder.node("QuantizeLinear", [weights, step, zero], f"{weights}.uint8")
    right, value_step = _signed(context, value, shape, [1, 0, 2])
    return builder.node(
        "MatMulIntegerToFloat", [left, right, step, value_step, zero], f"{name}.mixed", domain=MICROSOFT
    )


def _signed(context: Context, source: str, shape: str, perm: list[int]) -> tuple[str, str]:
    """Round ``source`` to int8 with its largest magnitude on the grid's end; returns (arranged values, scale)."""
    builder, limit = context.builder, largest_value(context.quantization.grid_bits(8))
    magnitude = builder.node("Abs", [source], f"{source}.magnitude")
    largest = builder.node("ReduceMax", [magnitude], f"{source}.largest", keepdims=0)
    positive = builder.node("Max", [largest, builder.constant(np.float32(1e-20))], f"{source}.largest.positive")
    step = builder.node("Mul", [positive, builder.constant(np.float32(1.0 / limit))], f"{source}.int8.scale")
    rounded = builder.node("QuantizeLinear", [source, step, builder.constant(np.int8(0))], f"{source}.int8")
    return _arrange(context, rounded, shape, perm), step


def _arrange(context: Context, source: str, shape: str, perm: list[int]) -> str:
    builder = context.builder
    return builder.node(
        "Transpose", [builder.node("Reshape", [source, shape], f"{source}.heads")], f"{source}.arranged", perm=perm
    )
