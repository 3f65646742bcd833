"""First-order importance of heads and feed-forward channels, and the removal orders that follow from it.

The sensitivity of the loss to a gate on a unit's output is ``<activation, dL/d activation>`` summed over the tokens of
an example; its mean absolute value over examples is the importance (Michel et al., arXiv 1905.10650; Molchanov et al.,
arXiv 1906.10771).
"""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional

from compressors.calibration.statistics import Calibration
from compressors.network import EncoderNetwork
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import Batch
from compressors.recovery.data import TrainingData
from compressors.recovery.data import sequential_batches
from compressors.torch_module import to_module
from infra.errors import CancelledError
from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.encoder import EncoderLayer
from paretune.artifact.structure import ClassificationStructure


@dataclass(frozen=True)
class Importance:
    """Mean absolute sensitivity of the loss, float64, by index of the layer in the dense model."""

    heads: dict[int, Tensor]
    """``[heads]``."""
    channels: dict[int, Tensor]
    """``[intermediate]``."""


def taylor_importance(
    network: EncoderNetwork,
    data: TrainingData,
    *,
    batch_size: int = 32,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
) -> Importance:
    """Measure the importance of every head and channel with one backward pass over the data.

    A classifier's loss is the cross-entropy of the label; where there is none, of a label drawn from the model's own
    prediction, so that the squared gradient estimates the Fisher information. An embedding's is its product with a
    random direction, so that every direction counts alike.

    Args:
        network: the model that will be pruned.
        data: some hundred examples.
        batch_size: examples for each pass. It does not change the result beyond rounding.
        seed: of drawn labels and directions.
        should_stop: polled after every batch.

    Raises:
        CancelledError: ``should_stop`` returned true.
    """
    module = to_module(network).requires_grad_(False)
    sums = _zeros(network)
    draw = _Draw(data, network, seed)
    with _captured(module) as captured:
        for batch in sequential_batches(data, batch_size):
            if should_stop is not None and should_stop():
                raise CancelledError("The importance scores were not finished.", hint="Start again.")
            hidden = module.embeddings(batch.input_ids, batch.token_type_ids).requires_grad_(True)
            mask = batch.attention_mask
            for layer in module.layers:
                hidden = layer(hidden, mask.bool()[:, None, None, :])
            draw.loss(module, module.head(hidden, mask), batch).backward()  # type: ignore[no-untyped-call]
            _add(sums, captured, network)
            captured.clear()
    for scores in (*sums.heads.values(), *sums.channels.values()):
        scores /= len(data)
    return sums


def add_taylor_orders(calibration: Calibration, importance: Importance) -> None:
    """Put the orders where recipes with ``criterion="taylor"`` look for them.

    An order names every head (or channel) of a layer once, the one to remove first in front.
    """
    for index, scores in importance.heads.items():
        calibration.orders[f"{index}.heads.taylor"] = scores.argsort(stable=True)
    for index, scores in importance.channels.items():
        calibration.orders[f"{index}.channels.taylor"] = scores.argsort(stable=True)


def has_taylor_orders(calibration: Calibration, network: EncoderNetwork) -> bool:
    """Return whether :func:`add_taylor_orders` has been called for the network."""
    return all(
        layer.attention is None or f"{layer.index}.heads.taylor" in calibration.orders for layer in network.layers
    ) and all(
        layer.feed_forward is None or f"{layer.index}.channels.taylor" in calibration.orders for layer in network.layers
    )


class _Draw:
    """The loss of a batch: a sum over examples, so that the gradients of examples do not mix.

    What is drawn for an example depends on its row in the data, not on the batch that it is in.
    """

    def __init__(self, data: TrainingData, network: EncoderNetwork, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self._uniform = torch.rand(len(data), generator=generator)
        self._directions = torch.randn(len(data), network.hidden_size, generator=generator)

    def loss(self, module: CompressedEncoder, output: Tensor, batch: Batch) -> Tensor:
        """Return the scalar to differentiate."""
        if not isinstance(module.structure.head, ClassificationStructure):
            return (output * self._directions[batch.indices]).sum()
        cumulative = output.detach().softmax(-1).cumsum(-1)
        drawn = (cumulative < self._uniform[batch.indices, None]).sum(-1).clamp_max(output.shape[-1] - 1)
        labels = drawn if batch.labels is None else torch.where(batch.labels == UNLABELLED, drawn, batch.labels)
        return functional.cross_entropy(output, labels, reduction="sum")


@contextmanager
def _captured(module: CompressedEncoder) -> Iterator[dict[tuple[int, str], Tensor]]:
    """Collect the inputs of ``attention.output`` and ``feed_forward.down``, with their gradients after backward."""
    captured: dict[tuple[int, str], Tensor] = {}

    def keep(key: tuple[int, str]) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            arguments[0].retain_grad()
            captured[key] = arguments[0]

        return hook

    handles = []
    for number, layer in enumerate(module.layers):
        assert isinstance(layer, EncoderLayer)
        if layer.attention is not None:
            handles.append(layer.attention.output.register_forward_pre_hook(keep((number, "heads"))))
        if layer.feed_forward is not None:
            handles.append(layer.feed_forward.down.register_forward_pre_hook(keep((number, "channels"))))
    try:
        yield captured
    finally:
        for handle in handles:
            handle.remove()


def _zeros(network: EncoderNetwork) -> Importance:
    heads, channels = {}, {}
    for layer in network.layers:
        if layer.attention is not None:
            heads[layer.index] = torch.zeros(layer.attention.heads, dtype=torch.float64)
        if layer.feed_forward is not None:
            channels[layer.index] = torch.zeros(layer.feed_forward.intermediate_size, dtype=torch.float64)
    return Importance(heads, channels)


def _add(sums: Importance, captured: dict[tuple[int, str], Tensor], network: EncoderNetwork) -> None:
    """Padding needs no mask: the head reads no padded position, so no gradient reaches what is computed there."""
    for (position, kind), activation in captured.items():
        layer = network.layers[position]
        assert activation.grad is not None
        gates = (activation.detach() * activation.grad).sum(1)  # over tokens: [B, channels]
        if kind == "channels":
            sums.channels[layer.index].add_(gates.abs().sum(0))
        else:
            assert layer.attention is not None
            by_head = gates.view(len(gates), layer.attention.heads, layer.attention.head_size).sum(-1)
            sums.heads[layer.index].add_(by_head.abs().sum(0))
