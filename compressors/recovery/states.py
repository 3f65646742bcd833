"""Token states of a compressed encoder, and which states of the dense model they are compared with."""

from collections.abc import Collection

import torch
from torch import Tensor

from compressors.recovery.data import Batch
from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.structure import Structure


def forward_with_states(
    module: CompressedEncoder, batch: Batch, positions: Collection[int]
) -> tuple[Tensor, dict[int, Tensor]]:
    """Run the module and keep the outputs of the layers at ``positions`` (positions in the module, not indices).

    Returns:
        The module's output (``[B, labels]`` or ``[B, D]``, float32) and ``{position: [B, S, D]}``.
    """
    hidden: Tensor = module.embeddings(batch.input_ids, batch.token_type_ids)
    mask = batch.attention_mask.bool()[:, None, None, :]
    states: dict[int, Tensor] = {}
    for position, layer in enumerate(module.layers):
        hidden = layer(hidden, mask)
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
