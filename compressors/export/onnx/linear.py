"""Linear layers: full or factorised, in every bit-width and quantisation scheme."""

import numpy as np
import torch

from compressors.export.onnx.builder import MICROSOFT
from compressors.export.onnx.context import Context
from compressors.export.onnx.quantization import Float
from compressors.export.onnx.quantization import quantize_in_blocks
from compressors.export.onnx.quantization import quantize_per_channel
from compressors.network import Linear
from compressors.recipe import BLOCK

INT8_COMPUTE = 4
"""``accuracy_level`` of ``MatMulNBits`` that lets the kernel round activations to int8."""


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
    """Write ``output = source @ weight.T + bias`` with ``weight`` ``[out, in]`` stored in ``bits`` bits.

    4 bits are always weight-only; 16 bits are storage, and the arithmetic is float32.
    """
    scheme = context.quantization.scheme
    if bits <= 8 and context.quantization.block_size(bits):
        return _weight_only(context, source, weight, bias, bits, output)
    if bits == 8 and scheme == "static":
        if context.probes is None:
            return _static_int8(context, source, weight, bias, output)
        largest = np.abs(weight).max(axis=0, initial=0.0)
        context.probes[source] = np.maximum(context.probes.get(source, largest), largest)
    elif bits == 8:
        return _dynamic_int8(context, source, weight, bias, output)
    stored = np.ascontiguousarray(weight.T)
    if bits == 16:
        half = context.builder.initializer(f"{output}.weight", stored.astype(np.float16))
        return _float(
            context, source, context.builder.node("Cast", [half], f"{output}.weight.float", to=1), bias, output
        )
    return _float(context, source, context.builder.initializer(f"{output}.weight", stored), bias, output)


def _float(context: Context, source: str, matrix: str, bias: Float | None, output: str) -> str:
    builder = context.builder
    if bias is None:
        return builder.node("MatMul", [source, matrix], output)
    shift = builder.initializer(f"{output}.bias", bias)
    if context.flat:
        return builder.node("Gemm", [source, matrix, shift], output)
    return builder.node("Add", [builder.node("MatMul", [source, matrix], f"{output}.product"), shift], output)


def _dynamic_int8(context: Context, source: str, weight: Float, bias: Float | None, output: str) -> str:
    """uint8 activations with one scale that is found at run time, int8 weights with a scale per output channel."""
    builder = context.builder
    values, scale = quantize_per_channel(weight, context.quantization.grid_bits(8))
    matrix = builder.initializer(f"{output}.weight", np.ascontiguousarray(values.T))
    scales = builder.initializer(f"{output}.weight.scale", scale)
    quantized, step, zero = quantize_at_run_time(context, source)
    if context.contrib:
        return _integer_product(context, quantized, step, zero, matrix, scales, bias, output)
    integers = builder.node("MatMulInteger", [quantized, matrix, zero], f"{output}.integers")
    floats = builder.node("Cast", [integers], f"{output}.floats", to=1)
    factor = builder.node("Mul", [step, scales], f"{output}.scale")
    scaled = builder.node("Mul", [floats, factor], output if bias is None else f"{output}.scaled")
    if bias is None:
        return scaled
    return builder.node("Add", [scaled, builder.initializer(f"{output}.bias", bias)], output)


def _static_int8(context: Context, source: str, weight: Float, bias: Float | None, output: str) -> str:
    """As the dynamic form, with activation scales from calibration; standard operators: quantise and dequantise."""
    builder = context.builder
    source, divisor = _smoothed(context, source)
    smoothed = weight if divisor is None else weight * divisor
    values, scale = quantize_per_channel(smoothed, context.quantization.grid_bits(8))
    matrix = builder.initializer(f"{output}.weight", np.ascontiguousarray(values.T))
    scales = builder.initializer(f"{output}.weight.scale", scale)
    quantized, step, zero = quantize_by_range(context, source)
    if context.contrib:
        return _integer_product(context, quantized, step, zero, matrix, scales, bias, output)
    return _float(
        context,
        dequantize(context, source),
        builder.node("DequantizeLinear", [matrix, scales], f"{output}.weight.float", axis=1),
        bias,
        output,
    )


def _integer_product(
    context: Context, source: str, step: str, zero: str, matrix: str, scales: str, bias: Float | None, output: str
) -> str:
    builder = context.builder
    inputs = [source, matrix, step, scales, zero]
    if bias is not None:
        inputs += ["", builder.initializer(f"{output}.bias", bias)]
    return builder.node("MatMulIntegerToFloat", inputs, output, domain=MICROSOFT)


def _weight_only(context: Context, source: str, weight: Float, bias: Float | None, bits: int, output: str) -> str:
    """Weights in blocks of few bits; activations come and go as floats.

    ``MatMulNBits`` may round them to int8 within the product (:data:`INT8_COMPUTE`); the standard form does not ask for
    that.
    """
    builder = context.builder
    blocks = quantize_in_blocks(weight, bits, BLOCK)
    outputs, inputs = weight.shape
    if context.contrib:
        names = [source, builder.initializer(f"{output}.weight", blocks.packed())]
        names.append(builder.initializer(f"{output}.weight.scale", blocks.scales.reshape(-1)))
        if bias is not None:
            names += ["", "", builder.initializer(f"{output}.bias", bias)]
        return builder.node(
            "MatMulNBits",
            names,
            output,
            domain=MICROSOFT,
            K=inputs,
            N=outputs,
            bits=bits,
            block_size=BLOCK,
            accuracy_level=INT8_COMPUTE,
        )
    values = blocks.values.reshape(outputs, -1).T  # whole blocks: OpenVINO refuses a last one that is not
    matrix = builder.integers(f"{output}.weight", values, bits)
    scales = builder.initializer(f"{output}.weight.scale", np.ascontiguousarray(blocks.scales.T))
    floats = builder.node("DequantizeLinear", [matrix, scales], f"{output}.weight.float", axis=0, block_size=BLOCK)
    if len(values) > inputs:
        bounds = [builder.constant(bound) for bound in ([0], [inputs], [0])]
        floats = builder.node("Slice", [floats, *bounds], f"{output}.weight.used")
    return _float(context, source, floats, bias, output)


def quantize_at_run_time(context: Context, source: str) -> tuple[str, str, str]:
    """Quantise ``source`` once, whoever asks; returns the names of (values, scale, zero point)."""
    names = (f"{source}.uint8", f"{source}.uint8.scale", f"{source}.uint8.zero")
    if source not in context.quantized:
        context.builder.nodes("DynamicQuantizeLinear", [source], list(names))
        context.quantized.add(source)
    return names


def _smoothed(context: Context, source: str) -> tuple[str, Float | None]:
    """Divide ``source`` by its range's divisor, if it has one; returns the name of the result and the divisor."""
    limits = context.range_of(source)
    name = f"{source}.smoothed"
    if limits.divisor is None:
        return source, None
    if name not in context.ranges:
        factor = context.builder.initializer(f"{name}.factor", np.float32(1.0) / limits.divisor)
        context.builder.node("Mul", [source, factor], name)
        context.ranges[name] = limits
    return name, limits.divisor


def quantize_by_range(context: Context, source: str) -> tuple[str, str, str]:
    """Quantise ``source`` once with its calibrated range; returns the names of (values, scale, zero point)."""
    names = (f"{source}.uint8", f"{source}.uint8.scale", f"{source}.uint8.zero")
    if source not in context.quantized:
        scale, zero = context.range_of(source).affine()
        context.builder.initializer(names[1], np.asarray(scale))
        context.builder.initializer(names[2], np.asarray(zero))
        context.builder.node("QuantizeLinear", [source, names[1], names[2]], names[0])
        context.quantized.add(source)
    return names


def dequantize(context: Context, source: str) -> str:
    """Return the name of ``source`` after rounding to its calibrated uint8 grid, as float32."""
    name = f"{source}.rounded"
    if name not in context.quantized:
        context.builder.node("DequantizeLinear", list(quantize_by_range(context, source)), name)
        context.quantized.add(name)
    return name


def to_numpy(tensor: torch.Tensor) -> Float:
    """Return ``tensor`` as a float32 array that does not share memory with a graph of gradients."""
    array: Float = tensor.detach().to(torch.float32).contiguous().numpy()
    return array
