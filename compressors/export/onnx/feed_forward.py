"""The feed-forward branch and its activation functions."""

import math

import numpy as np

from compressors.export.onnx.builder import MICROSOFT
from compressors.export.onnx.context import Context
from compressors.export.onnx.linear import emit_linear
from compressors.network import FeedForward


def emit_feed_forward(context: Context, source: str, branch: FeedForward, name: str) -> str:
    """Write ``down(activation(up(source)))``; returns the branch's output without the residual."""
    wide = emit_linear(context, source, branch.up, f"{name}.up")
    active = emit_activation(context, wide, branch.activation, f"{name}.activation")
    return emit_linear(context, active, branch.down, f"{name}.down")


def emit_activation(context: Context, source: str, kind: str, output: str) -> str:
    """Write one of ``relu``, ``tanh``, ``gelu`` (in the recipe's form) or ``gelu_tanh``."""
    builder = context.builder
    if kind == "relu":
        return builder.node("Relu", [source], output)
    if kind == "tanh":
        return builder.node("Tanh", [source], output)
    if kind == "gelu_tanh" or context.graph.gelu == "tanh":
        if context.contrib:
            return builder.node("FastGelu", [source], output, domain=MICROSOFT)
        return builder.node("Gelu", [source], output, approximate="tanh")
    if context.graph.gelu == "fused":
        return builder.node("Gelu", [source], output, domain=MICROSOFT if context.contrib else "")
    return _gelu_elementary(context, source, output)


def _gelu_elementary(context: Context, source: str, output: str) -> str:
    """``x * (erf(x / sqrt 2) + 1) * 0.5`` in the order that runtimes recognise."""
    builder = context.builder
    scaled = builder.node("Div", [source, builder.constant(np.float32(math.sqrt(2.0)))], f"{output}.scaled")
    erf = builder.node("Erf", [scaled], f"{output}.erf")
    shifted = builder.node("Add", [erf, builder.constant(np.float32(1.0))], f"{output}.shifted")
    product = builder.node("Mul", [source, shifted], f"{output}.product")
    return builder.node("Mul", [product, builder.constant(np.float32(0.5))], output)
