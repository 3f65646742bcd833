"""Exact output error of every matrix of a candidate on the calibration tokens, without activations."""

import torch
from torch import Tensor

from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import Site
from compressors.linear_algebra import composed_error
from compressors.linear_algebra import output_energy
from compressors.methods.removal_order import expand_groups
from compressors.moments import Moments
from compressors.network import EncoderNetwork
from compressors.network import Layer
from compressors.network import Linear
from compressors.orders import Criterion
from compressors.removal import kept_channels
from compressors.removal import kept_heads
from compressors.tensors import named_linears

_SITES: dict[str, Site] = {
    "attention.query": "attention_in",
    "attention.key": "attention_in",
    "attention.value": "attention_in",
    "attention.output": "attention_out",
    "feed_forward.up": "feed_forward_in",
    "feed_forward.down": "feed_forward_mid",
}


def relative_errors(
    network: EncoderNetwork, candidate: EncoderNetwork, calibration: Calibration, criterion: Criterion
) -> dict[str, float]:
    """Return ``||y' - y||^2 / ||y||^2`` of every linear layer, both fed with the dense model's inputs.

    Whatever chain of methods made the candidate, its errors do not add up; this is the error of the result. For query,
    key, value and ``up``, whose removed outputs nobody reads, only the outputs that stay are compared. A branch that
    was removed has the error 1 at its last matrix.

    Args:
        network: the dense model.
        candidate: what :func:`compressors.apply.apply_recipe` made of it.
        calibration: of the dense model.
        criterion: the recipe's criterion, which says what was removed.

    Returns:
        By ``"<layer>.<matrix>"``, such as ``"3.feed_forward.down"``. Layers that were dropped have no entry.
    """
    errors: dict[str, float] = {}
    dense_layers = {layer.index: layer for layer in network.layers}
    for layer in candidate.layers:
        dense = dense_layers[layer.index]
        smaller, kept = dict(named_linears(layer)), _kept(dense, layer, calibration, criterion)
        for name, original in named_linears(dense):
            if name in smaller:
                moments = calibration.at(layer.index, _SITES[name]).moments()
                outputs, inputs = kept[name]
                errors[f"{layer.index}.{name}"] = _relative_error(original, smaller[name], outputs, inputs, moments)
            elif name in ("attention.output", "feed_forward.down"):
                errors[f"{layer.index}.{name}"] = 1.0
    return errors


def _kept(
    dense: Layer, layer: Layer, calibration: Calibration, criterion: Criterion
) -> dict[str, tuple[Tensor, Tensor]]:
    """Indices of the outputs and of the inputs that each matrix of ``layer`` kept."""
    kept: dict[str, tuple[Tensor, Tensor]] = {}
    hidden = torch.arange(dense.attention_norm.weight.shape[0])
    if layer.attention is not None:
        heads = kept_heads(dense, calibration, criterion, layer.attention.heads)
        rows = expand_groups(heads, layer.attention.head_size)
        kept |= {f"attention.{name}": (rows, hidden) for name in ("query", "key", "value")}
        kept["attention.output"] = (hidden, rows)
    if layer.feed_forward is not None:
        channels = kept_channels(dense, calibration, criterion, layer.feed_forward.intermediate_size)
        kept["feed_forward.up"], kept["feed_forward.down"] = (channels, hidden), (hidden, channels)
    return kept


def _relative_error(original: Linear, smaller: Linear, outputs: Tensor, inputs: Tensor, moments: Moments) -> float:
    weight, new_weight = original.matrix().double()[outputs], smaller.matrix().double()
    bias = torch.zeros(len(outputs), dtype=torch.float64) if original.bias is None else original.bias.double()[outputs]
    new_bias = torch.zeros_like(bias) if smaller.bias is None else smaller.bias.double()
    offset = weight @ moments.mean + bias - new_weight @ moments.mean[inputs] - new_bias
    error = composed_error(weight, new_weight, inputs, moments.centred)
    error += float(moments.count * offset.square().sum())
    return max(error, 0.0) / output_energy(weight, bias, moments.centred, moments.mean, moments.count)
