"""LayerNorm, alone or after a residual sum."""

from compressors.export.onnx.builder import MICROSOFT
from compressors.export.onnx.context import Context
from compressors.export.onnx.linear import to_numpy
from compressors.network import Norm


def emit_norm(context: Context, source: str, norm: Norm, output: str) -> str:
    """Write ``output = norm(source)`` over the last axis."""
    weight, bias = _parameters(context, norm, output)
    return context.builder.node(
        "LayerNormalization", [source, weight, bias], output, axis=-1, epsilon=float(norm.epsilon)
    )


def emit_residual_norm(context: Context, source: str, branch: str, norm: Norm, output: str) -> str:
    """Write ``output = norm(source + branch)``."""
    if context.contrib and context.graph.fused_skip_norm:
        weight, bias = _parameters(context, norm, output)
        return context.builder.node(
            "SkipLayerNormalization",
            [source, branch, weight, bias],
            output,
            domain=MICROSOFT,
            epsilon=float(norm.epsilon),
        )
    total = context.builder.node("Add", [branch, source], f"{output}.residual")
    return emit_norm(context, total, norm, output)


def _parameters(context: Context, norm: Norm, output: str) -> tuple[str, str]:
    weight = context.builder.initializer(f"{output}.weight", to_numpy(norm.weight))
    return weight, context.builder.initializer(f"{output}.bias", to_numpy(norm.bias))
