"""The tensors of a network by name: the names of the torch module's ``state_dict``, of safetensors files, of tests."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.network import Layer
from compressors.network import Linear


def named_linears(layer: Layer) -> Iterator[tuple[str, Linear]]:
    """Yield the linear layers of a transformer layer, such as ``("attention.query", ...)``."""
    if layer.attention is not None:
        for name in ("query", "key", "value", "output"):
            yield f"attention.{name}", getattr(layer.attention, name)
    if layer.feed_forward is not None:
        yield "feed_forward.up", layer.feed_forward.up
        yield "feed_forward.down", layer.feed_forward.down


def tensor_slots(network: EncoderNetwork) -> Iterator[tuple[str, Any, str]]:
    """Yield ``(name, owner, attribute)`` for every tensor: ``getattr(owner, attribute)`` is the tensor.

    Layers are named by their position in ``network.layers``, not by their index in the dense model.
    """
    embeddings = network.embeddings
    for table in ("word", "position", "token_type"):
        if getattr(embeddings, table) is not None:
            yield f"embeddings.{table}.weight", embeddings, table
    yield from _norm("embeddings.norm", embeddings.norm)
    for position, layer in enumerate(network.layers):
        prefix = f"layers.{position}"
        for name, linear in named_linears(layer):
            yield from _linear(f"{prefix}.{name}", linear)
        yield from _norm(f"{prefix}.attention_norm", layer.attention_norm)
        yield from _norm(f"{prefix}.feed_forward_norm", layer.feed_forward_norm)
    if isinstance(network.head, ClassificationHead):
        if network.head.dense is not None:
            yield from _linear("head.dense", network.head.dense)
        yield from _linear("head.classifier", network.head.classifier)


def named_tensors(network: EncoderNetwork) -> dict[str, Tensor]:
    """Return every tensor of the network by name. The tensors are the network's own, not copies."""
    return {name: getattr(owner, attribute) for name, owner, attribute in tensor_slots(network)}


def _linear(prefix: str, linear: Linear) -> Iterator[tuple[str, Any, str]]:
    for attribute in ("weight", "left", "right", "bias"):
        if getattr(linear, attribute) is not None:
            yield f"{prefix}.{attribute}", linear, attribute


def _norm(prefix: str, norm: Any) -> Iterator[tuple[str, Any, str]]:
    yield f"{prefix}.weight", norm, "weight"
    yield f"{prefix}.bias", norm, "bias"
