"""Linear layers: float32, float16 storage, dynamic int8; full or factorised."""

import numpy as np
import torch

from compressors.export.onnx.builder import MICROSOFT
from compressors.export.onnx.context import Context
from compressors.export.onnx.quantization import Float
from compressors.export.onnx.quantization import quantize_per_channel
from compressors.network import Linear


def emit_linear(context: Context, source: str, linear: Linear, output: str) -> str:
    """Write ``output = linear(source)``; ``source`` is ``[..., in]``, the result ``[..., out]``."""
    bias = None if linear.bias is None else to_numpy(linear.bias)
    if linear.weight is not None:
        return emit_product(context, source, to_numpy(linear.weight), bias, linear.bits, output)
    assert linear.left is not None
    assert linear.right is not None
    narrow = emit_product(context, source, to_numpy(linear.right), None, linear.bits, f"{output}.narrow")
    return emit_product(context, narrow, to_numpy(linear.left), bias, linear.bits, output)


def emit_product(context: Context, source: str, weight: Float, bias: Float | None, bits: int, output: str) -> str:
    """Write ``output = source @ weight.T + bias`` with ``weight`` ``[out, in]`` stored in ``bits`` bits."""
    if bits == 8:
        return _dynamic_int8(context, source, weight, bias, output)
    builder = context.builder
    stored = np.ascontiguousarray(weight.T)
    name = builder.initializer(f"{output}.weight", stored.astype(np.float16) if bits == 16 else stored)
    if bits == 16:
        name = builder.node("Cast", [name], f"{output}.weight.float", to=1)
    if bias is None:
        return builder.node("MatMul", [source, name], output)
    if context.flat:
        return builder.node("Gemm", [source, name, builder.initializer(f"{output}.bias", bias)], output)
    product = builder.node("MatMul", [source, name], f"{output}.product")
    return builder.node("Add", [product, builder.initializer(f"{output}.bias", bias)], output)


def _dynamic_int8(context: Context, source: str, weight: Float, bias: Float | None, output: str) -> str:
    """uint8 activations with one scale that is found at run time, int8 weights with a scale per output channel."""
    builder = context.builder
    values, scale = quantize_per_channel(weight)
    matrix = builder.initializer(f"{output}.weight", np.ascontiguousarray(values.T))
    scales = builder.initializer(f"{output}.weight.scale", scale)
    quantized, step, zero = quantize_activation(context, source)
    if context.contrib:
        inputs = [quantized, matrix, step, scales, zero, ""]
        inputs += [] if bias is None else [builder.initializer(f"{output}.bias", bias)]
        while not inputs[-1]:
            inputs.pop()
        return builder.node("MatMulIntegerToFloat", inputs, output, domain=MICROSOFT)
    integers = builder.node("MatMulInteger", [quantized, matrix, zero], f"{output}.integers")
    floats = builder.node("Cast", [integers], f"{output}.floats", to=1)
    factor = builder.node("Mul", [step, scales], f"{output}.scale")
    scaled = builder.node("Mul", [floats, factor], output if bias is None else f"{output}.scaled")
    if bias is None:
        return scaled
    return builder.node("Add", [scaled, builder.initializer(f"{output}.bias", bias)], output)


def quantize_activation(context: Context, source: str) -> tuple[str, str, str]:
    """Quantise ``source`` once, whoever asks; returns the names of (values, scale, zero point)."""
    cache = context.builder.quantized
    if source not in cache:
        names = [f"{source}.uint8", f"{source}.uint8.scale", f"{source}.uint8.zero"]
        context.builder.nodes("DynamicQuantizeLinear", [source], names)
        cache[source] = (names[0], names[1], names[2])
    return cache[source]


def to_numpy(tensor: torch.Tensor) -> Float:
    """Return ``tensor`` as a float32 array that does not share memory with a graph of gradients."""
    array: Float = tensor.detach().to(torch.float32).contiguous().numpy()
    return array
