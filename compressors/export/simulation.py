"""The rounding of few bits, played through in torch: how much error a bit-width must be expected to cause."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional

from compressors.export.onnx.linear import to_numpy
from compressors.export.onnx.quantization import quantize_in_blocks
from compressors.export.onnx.quantization import quantize_per_channel
from compressors.export.onnx.quantization import quantize_rows
from compressors.forward import LinearMap
from compressors.forward import apply_linear
from compressors.forward import fold_value_bias
from compressors.forward import round_activations
from compressors.network import EncoderNetwork
from compressors.network import Linear
from compressors.recipe import BLOCK
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.torch_module import to_module


def rounded_module(
    network: EncoderNetwork, quantization: QuantizationRecipe, *, int8_products: bool = False
) -> nn.Module:
    """Return the network's torch module with rounded weights, activations and embeddings.

    Weights are rounded exactly as they are stored. Activations get one uint8 grid for each call, also where the file
    has calibrated grids. The result estimates the size of the error, it does not reproduce the file to the last digit.

    Args:
        network: What is written.
        quantization: How its layers with few bits are computed.
        int8_products: Also round what weight-only layers read, block by block, as ONNX Runtime's kernel is free to.
    """
    network = as_written(network)
    module = to_module(network)
    for layer, source in zip(module.layers, network.layers, strict=True):
        for branch in ("attention", "feed_forward"):
            names = ("query", "key", "value", "output") if branch == "attention" else ("up", "down")
            owner, linears = getattr(layer, branch), getattr(source, branch)
            for name in names if owner is not None else ():
                linear = getattr(linears, name)
                if linear.bits < 32:
                    operand = name in ("query", "key", "value")
                    setattr(
                        owner, name, _RoundedLinear(linear, quantization, is_operand=operand, in_blocks=int8_products)
                    )
    table = stored_table(network.embeddings.word, quantization)
    module.embeddings.word.weight = nn.Parameter(table, requires_grad=False)
    return module


def as_written(network: EncoderNetwork) -> EncoderNetwork:
    """Return the same network as its file computes it: no bias of values goes through the rounding behind them."""
    layers = [
        layer if layer.attention is None else replace(layer, attention=fold_value_bias(layer.attention))
        for layer in network.layers
    ]
    return replace(network, layers=layers)


class _RoundedLinear(nn.Module):
    def __init__(self, linear: Linear, quantization: QuantizationRecipe, *, is_operand: bool, in_blocks: bool) -> None:
        super().__init__()
        stages = [linear.weight] if linear.weight is not None else [linear.right, linear.left]
        self.weights = [stored_weight(stage, linear.bits, quantization) for stage in stages if stage is not None]
        self.bias = linear.bias
        self.rounds_inputs = quantization.rounds_inputs(linear.bits)
        self.in_blocks = in_blocks and linear.bits < 16 and quantization.block_size(linear.bits) is not None
        self.rounds_output = linear.bits == 8 and is_operand and quantization.attention_products

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]``."""
        for weight in self.weights:
            if self.rounds_inputs:
                inputs = _round_activation(inputs)
            elif self.in_blocks:
                inputs = round_blocks(inputs)
            inputs = functional.linear(inputs, weight)
        output = inputs if self.bias is None else inputs + self.bias
        return _round_activation(output) if self.rounds_output else output


def stored_linear(linear: Linear, quantization: QuantizationRecipe) -> Linear:
    """Return the layer with the weights that its file has; itself where they are not rounded."""
    if linear.bits == 32:
        return linear
    weight, left, right = (
        None if matrix is None else stored_weight(matrix, linear.bits, quantization)
        for matrix in (linear.weight, linear.left, linear.right)
    )
    return replace(linear, weight=weight, left=left, right=right)


def stored_weight(weight: Tensor, bits: int, quantization: QuantizationRecipe) -> Tensor:
    """Round ``weight`` ``[out, in]`` exactly as it is stored in ``bits`` bits, 16 or fewer; float32."""
    if bits == 16:
        return weight.half().float()
    if quantization.block_size(bits) is None:
        values, scales = quantize_per_channel(to_numpy(weight), quantization.grid_bits(bits))
        return torch.from_numpy(values * scales[:, None])
    blocks = quantize_in_blocks(to_numpy(weight), bits, BLOCK)
    rows = (blocks.values * blocks.scales[..., None]).reshape(weight.shape[0], -1)
    return torch.from_numpy(rows[:, : weight.shape[1]].copy())


def stored_table(table: Tensor, quantization: QuantizationRecipe) -> Tensor:
    """Return the word embeddings ``[vocabulary, hidden]`` that the file has; themselves where they are not rounded."""
    if quantization.embedding_bits == 32:
        return table
    values, scales = quantize_rows(to_numpy(table))
    return torch.from_numpy(values * scales)


def input_rounding(recipe: Recipe, bits: int) -> Callable[[Tensor], Tensor] | None:
    """Return how the recipe's file rounds what a layer with ``bits`` bits reads, text by text; ``None``: not at all.

    What weight-only layers read is rounded within the products of ONNX Runtime's own operator, block by block; written
    with standard operators they multiply floats.
    """
    if recipe.quantization.rounds_inputs(bits):
        return round_activations
    in_blocks = bits < 16 and recipe.quantization.block_size(bits) is not None
    return round_blocks if in_blocks and recipe.graph.operators == "contrib" else None


def deployed_product(recipe: Recipe) -> LinearMap:
    """Return the product of a layer, whose weights are those of the file, as the recipe's file computes it."""

    def product(values: Tensor, linear: Linear) -> Tensor:
        rounding = input_rounding(recipe, linear.bits)
        if rounding is None:
            return apply_linear(values, linear)
        if linear.left is None or linear.right is None:
            return apply_linear(rounding(values), linear)
        latent = functional.linear(rounding(values), linear.right)
        return functional.linear(rounding(latent), linear.left, linear.bias)

    return product


def _round_activation(values: Tensor) -> Tensor:
    """The grid of ``DynamicQuantizeLinear``: 256 steps between the extremes of the whole tensor, which include 0."""
    return round_activations(values[None])[0]


def round_blocks(values: Tensor) -> Tensor:
    """Round to the grid of ``MatMulNBits`` with int8 products: 127 steps to either side, for each block of channels."""
    channels = values.shape[-1]
    blocks = functional.pad(values, (0, -channels % BLOCK)).reshape(*values.shape[:-1], -1, BLOCK)
    step = (blocks.abs().amax(-1, keepdim=True) / 127).clamp_min(torch.finfo(values.dtype).tiny)
    rounded: Tensor = (torch.round(blocks / step) * step).flatten(-2)[..., :channels]
    return rounded
