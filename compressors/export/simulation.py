"""The rounding of few bits, played through in torch: what a file with few bits computes, and how much error that is.

Weights are rounded exactly as they are stored. What a layer with few bits reads gets a grid at run time, also where the
file has calibrated ones, so that results estimate the size of an error and do not reproduce a file to the last digit.
"""

from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional

from compressors.export.onnx.embeddings import has_token_types
from compressors.export.onnx.linear import to_numpy
from compressors.export.onnx.quantization import quantize_in_blocks
from compressors.export.onnx.quantization import quantize_per_channel
from compressors.export.onnx.quantization import quantize_rows
from compressors.forward import LinearMap
from compressors.forward import apply_linear
from compressors.forward import fold_value_bias
from compressors.network import Attention
from compressors.network import Embeddings
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Linear
from compressors.recipe import BLOCK
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.tensors import named_linears
from compressors.torch_module import to_module

Grid = Literal["call", "text"]
"""Which activations share a grid of 256 steps. A file finds one for all that a call hands in, padding included.

``call``: one for the whole tensor, which is what the file does with this very batch. ``text``: one for each row, which
is what it does with the same texts one by one: at batch 1 that is the deployed model, and texts are in one batch here
only because that is faster. (A file that is called with several texts lets them share; which ones, only its user
knows.)

In the last layer of a classifier the file computes for the first token alone (``first_token_head``), whose grids are
then its own. Neither grid shows that: there the rounding of activations comes out a little too coarse.
"""


@dataclass(frozen=True)
class FileArithmetic:
    """How a file computes its linear layers, whose weights are those that it stores.

    Attributes:
        quantization: The file's.
        grid: Which activations share a grid.
        int8_products: Whether what weight-only layers read is rounded within the product, block by block.
        int8_attention: Whether queries, keys and values of branches with 8 bits are rounded once more, for the products
            between them.
    """

    quantization: QuantizationRecipe
    grid: Grid
    int8_products: bool
    int8_attention: bool

    @classmethod
    def of(cls, recipe: Recipe, grid: Grid) -> "FileArithmetic":
        """Return the arithmetic of ``recipe``'s file.

        The products of weight-only layers are of integers in ONNX Runtime's own operators; written with standard ones
        they are of floats. Those of attention are of floats in all layouts but one.
        """
        contrib = recipe.graph.operators == "contrib"
        flat = contrib and recipe.graph.layout == "sequence_first"
        return cls(recipe.quantization, grid, contrib, flat and recipe.quantization.attention_products)

    def rounding(self, bits: int) -> Callable[[Tensor], Tensor] | None:
        """Return how what a layer with ``bits`` bits reads is rounded; ``None``: not at all."""
        if self.quantization.rounds_inputs(bits):
            return partial(round_activations, grid=self.grid)
        in_blocks = bits < 16 and self.quantization.block_size(bits) is not None
        return round_blocks if in_blocks and self.int8_products else None

    def product(self, values: Tensor, linear: Linear) -> Tensor:
        """Return ``linear`` of ``values [batch, ..., in]``, ``[batch, ..., out]``."""
        rounding = self.rounding(linear.bits)
        if rounding is None:
            return apply_linear(values, linear)
        if linear.left is None or linear.right is None:
            return apply_linear(rounding(values), linear)
        latent = functional.linear(rounding(values), linear.right)
        return functional.linear(rounding(latent), linear.left, linear.bias)

    def operand(self, values: Tensor, linear: Linear) -> Tensor:
        """Return the same of a projection to queries, keys or values, as the products of attention read it."""
        output = self.product(values, linear)
        return round_activations(output, self.grid) if self.int8_attention and linear.bits == 8 else output


def rounded_module(network: EncoderNetwork, quantization: QuantizationRecipe) -> nn.Module:
    """Return the network's torch module with rounded weights, activations and embeddings; a batch is one call.

    Everything is rounded that a runtime is free to round, such as what weight-only layers read, whatever the operators
    in the file: ONNX Runtime finds its own ones in the standard form.

    Args:
        network: What is written.
        quantization: How its layers with few bits are computed.
    """
    network = as_written(network)
    module = to_module(replace(network, embeddings=stored_embeddings(network.embeddings, quantization)), share=True)
    arithmetic = FileArithmetic(
        quantization, "call", int8_products=True, int8_attention=quantization.attention_products
    )
    for layer, source in zip(module.layers, network.layers, strict=True):
        for name, linear in named_linears(source):
            branch, _, matrix = name.partition(".")
            product = arithmetic.operand if matrix in ("query", "key", "value") else arithmetic.product
            setattr(getattr(layer, branch), matrix, _Product(stored_linear(linear, quantization), product))
    return module


class _Product(nn.Module):
    def __init__(self, linear: Linear, product: LinearMap) -> None:
        super().__init__()
        self.linear, self.product = linear, product

    def forward(self, inputs: Tensor) -> Tensor:
        """``[..., in]`` -> ``[..., out]``."""
        return self.product(inputs, self.linear)


def as_written(network: EncoderNetwork) -> EncoderNetwork:
    """Return the same network as its file computes it: no bias of values goes through the rounding behind them."""
    layers = [
        layer if layer.attention is None else replace(layer, attention=fold_value_bias(layer.attention))
        for layer in network.layers
    ]
    return replace(network, layers=layers)


def stored_attention(attention: Attention, quantization: QuantizationRecipe) -> Attention:
    """Return the branch with the weights that its file has, its biases where they are.

    What the bias of the values adds to the output, a file has computed with the output's weights before these were
    rounded: the output's bias makes up for what the rounded ones lack.
    """
    query, key, value, output = (
        stored_linear(linear, quantization)
        for linear in (attention.query, attention.key, attention.value, attention.output)
    )
    stored = replace(attention, query=query, key=key, value=value, output=output)
    exact, rounded = fold_value_bias(attention).output.bias, fold_value_bias(stored).output.bias
    if exact is None or rounded is None:
        return stored
    lacking = exact - rounded
    return replace(stored, output=replace(output, bias=lacking if output.bias is None else output.bias + lacking))


def stored_feed_forward(branch: FeedForward, quantization: QuantizationRecipe) -> FeedForward:
    """Return the branch with the weights that its file has."""
    return replace(branch, up=stored_linear(branch.up, quantization), down=stored_linear(branch.down, quantization))


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


def stored_embeddings(embeddings: Embeddings, quantization: QuantizationRecipe) -> Embeddings:
    """Return the embeddings with the tables that the file has; themselves where they are not rounded."""
    if quantization.embedding_bits == 32:
        return embeddings
    types = embeddings.token_type
    added = (
        0.0 if types is None or has_token_types(embeddings) else types[0]
    )  # the only type is in the file's positions
    position = _stored_rows(embeddings.position + added) - added
    return replace(embeddings, word=_stored_rows(embeddings.word), position=position)


def _stored_rows(table: Tensor) -> Tensor:
    values, scales = quantize_rows(to_numpy(table))
    return torch.from_numpy(values * scales)


def round_activations(values: Tensor, grid: Grid) -> Tensor:
    """Round ``values [batch, ...]`` as ``DynamicQuantizeLinear``: to 256 steps between extremes, which include 0."""
    axes = tuple(range(0 if grid == "call" else 1, values.dim()))
    low, high = values.amin(axes, keepdim=True).clamp(max=0.0), values.amax(axes, keepdim=True).clamp(min=0.0)
    scale = ((high - low) / 255).clamp(min=torch.finfo(torch.float32).tiny)
    zero = torch.round(-low / scale)
    return (torch.clamp(torch.round(values / scale) + zero, 0, 255) - zero) * scale


def round_blocks(values: Tensor) -> Tensor:
    """Round to the grid of ``MatMulNBits`` with int8 products: 127 steps to either side, for each block of channels."""
    channels = values.shape[-1]
    blocks = functional.pad(values, (0, -channels % BLOCK)).reshape(*values.shape[:-1], -1, BLOCK)
    step = (blocks.abs().amax(-1, keepdim=True) / 127).clamp_min(torch.finfo(values.dtype).tiny)
    rounded: Tensor = (torch.round(blocks / step) * step).flatten(-2)[..., :channels]
    return rounded
