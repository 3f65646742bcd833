"""The rounding of few bits, played through in torch: how much error a bit-width must be expected to cause."""

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional

from compressors.export.onnx.linear import BLOCK
from compressors.export.onnx.linear import to_numpy
from compressors.export.onnx.quantization import quantize_in_blocks
from compressors.export.onnx.quantization import quantize_per_channel
from compressors.export.onnx.quantization import quantize_rows
from compressors.forward import round_activations
from compressors.network import EncoderNetwork
from compressors.network import Linear
from compressors.recipe import QuantizationRecipe
from compressors.torch_module import to_module


def rounded_module(network: EncoderNetwork, quantization: QuantizationRecipe) -> nn.Module:
    """Return the network's torch module with rounded weights, activations and embeddings.

    Weights are rounded exactly as they are stored. Activations get one uint8 grid for each call, also where the file
    has calibrated grids. The result estimates the size of the error, it does not reproduce the file to the last digit.
    """
    module = to_module(network)
    for layer, source in zip(module.layers, network.layers, strict=True):
        for branch in ("attention", "feed_forward"):
            names = ("query", "key", "value", "output") if branch == "attention" else ("up", "down")
            owner, linears = getattr(layer, branch), getattr(source, branch)
            for name in names if owner is not None else ():
                linear = getattr(linears, name)
                if linear.bits < 32:
                    operand = name in ("query", "key", "value")
                    setattr(owner, name, _RoundedLinear(linear, quantization, is_operand=operand))
    if quantization.embedding_bits == 8:
        values, scales = quantize_rows(to_numpy(network.embeddings.word))
        module.embeddings.word.weight = nn.Parameter(torch.from_numpy(values * scales), requires_grad=False)
    return module


class _RoundedLinear(nn.Module):
    def __init__(self, linear: Linear, quantization: QuantizationRecipe, *, is_operand: bool) -> None:
        super().__init__()
        stages = [linear.weight] if linear.weight is not None else [linear.right, linear.left]
        self.weights = [_round_weight(stage, linear.bits, quantization) for stage in stages if stage is not None]
        self.bias = linear.bias
        self.rounds_inputs = linear.bits == 8 and quantization.scheme != "weight_only"
        self.rounds_output = linear.bits == 8 and is_operand and quantization.attention_products

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]``."""
        for weight in self.weights:
            inputs = functional.linear(_round_activation(inputs) if self.rounds_inputs else inputs, weight)
        output = inputs if self.bias is None else inputs + self.bias
        return _round_activation(output) if self.rounds_output else output


def _round_weight(weight: Tensor, bits: int, quantization: QuantizationRecipe) -> Tensor:
    if bits == 16:
        return weight.half().float()
    if bits == 8 and quantization.scheme != "weight_only":
        values, scales = quantize_per_channel(to_numpy(weight), quantization.grid_bits(8))
        return torch.from_numpy(values * scales[:, None])
    blocks = quantize_in_blocks(to_numpy(weight), bits, BLOCK, per_channel=quantization.rounding == "gptq")
    rows = (blocks.values * blocks.scales[..., None]).reshape(weight.shape[0], -1)
    return torch.from_numpy(rows[:, : weight.shape[1]].copy())


def _round_activation(values: Tensor) -> Tensor:
    """The grid of ``DynamicQuantizeLinear``: 256 steps between the extremes of the whole tensor, which include 0."""
    return round_activations(values[None])[0]
