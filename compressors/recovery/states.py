"""Token states of a compressed encoder, and which states of the dense model they are compared with."""

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional

from compressors.recovery.data import Batch
from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.encoder import EncoderLayer
from paretune.artifact.encoder import SelfAttention
from paretune.artifact.structure import ClassificationStructure
from paretune.artifact.structure import Structure


def forward_with_states(
    module: CompressedEncoder, batch: Batch, positions: Collection[int], *, shorten: bool = False
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run the module and keep the outputs of the layers at ``positions`` (positions in the module, not indices).

    Args:
        module: student or dense model.
        batch: its input.
        positions: layers whose outputs are wanted.
        shorten: compute the last layer for the first token only, where the head reads nothing else. The output is the
            same; the states of the last layer are then ``[B, 1, D]``.

    Returns:
        The module's output (``[B, labels]`` or ``[B, D]``, float32) and ``{position: [B, S, D]}``.
    """
    hidden: Tensor = module.embeddings(batch.input_ids, batch.token_type_ids)
    mask = batch.attention_mask.bool()[:, None, None, :]
    shorten = shorten and isinstance(module.structure.head, ClassificationStructure)
    last = len(module.layers) - 1
    states: dict[int, Tensor] = {}
    for position, layer in enumerate(module.layers):
        assert isinstance(layer, EncoderLayer)
        hidden = _first_token(layer, hidden, mask) if shorten and position == last else layer(hidden, mask)
        if position in positions:
            states[position] = hidden
    output: Tensor = module.head(hidden, batch.attention_mask)
    return output.to(torch.float32), states


def layer_map(structure: Structure, dense_layers: int) -> dict[int, int]:
    """Map each position of the student to the index of the dense layer whose output it should reproduce.

    A layer should hand on what the layer after it used to receive. Without dropped layers that is the output of the
    same layer; where layers were dropped it is the output of the last one dropped, because the next layer that is left
    was trained on that.
    """
    following = [layer.index - 1 for layer in structure.layers[1:]]
    return dict(enumerate([*following, dense_layers - 1])) if structure.layers else {}


def _first_token(layer: EncoderLayer, hidden: Tensor, mask: Tensor) -> Tensor:
    """What :meth:`EncoderLayer.forward` returns for the first token: [B, S, D] -> [B, 1, D]."""
    first = hidden[:, :1]
    if layer.attention is not None:
        first = first + _attend(layer.attention, first, hidden, mask)
    first = layer.attention_norm(first)
    if layer.feed_forward is not None:
        first = first + layer.feed_forward(first)
    normalised: Tensor = layer.feed_forward_norm(first)
    return normalised


def _attend(attention: SelfAttention, queries: Tensor, hidden: Tensor, mask: Tensor) -> Tensor:
    """[B, Q, D] attends to [B, S, D] -> [B, Q, D]."""
    projected = (attention.query(queries), attention.key(hidden), attention.value(hidden))
    query, key, value = (part.unflatten(2, (-1, attention.head_size)).transpose(1, 2) for part in projected)
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    output: Tensor = attention.output(context.transpose(1, 2).flatten(2))
    return output
