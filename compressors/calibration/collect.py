"""One padding-masked pass over the calibration text, layer by layer.

All batches go through layer 0, then all through layer 1, and so on: only the statistics of one layer are held in
float64, and the states between layers take ``tokens x hidden`` floats whatever the depth.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional

from compressors.calibration.accumulator import Accumulator
from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import InputStatistics
from compressors.calibration.statistics import Site
from compressors.network import EncoderNetwork
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from paretune.artifact.encoder import EncoderLayer

_TOKENS_PER_CHANNEL = 10
_LEAST_TOKENS = 16_384


@torch.no_grad()
def calibrate(network: EncoderNetwork, batches: Iterable[dict[str, Tensor]]) -> Calibration:
    """Collect the input statistics of every linear layer of ``network``.

    Args:
        network: the dense model.
        batches: ``input_ids`` and ``attention_mask`` (optionally ``token_type_ids``), int64 ``[batch, sequence]``.
            Padding is ignored. Batches of similar lengths are fastest.

    Returns:
        The statistics. Moments are taken over all attended tokens, or over a random subset (always the same for the
        same token count) of ten tokens for each channel of the widest input where there are more.

    Raises:
        InvalidInputError: no attended token, or a batch without ``input_ids`` and ``attention_mask``.
    """
    module = to_module(network, share=True)
    inputs = [_checked(batch) for batch in batches]
    masks = [batch["attention_mask"].bool() for batch in inputs]
    tokens = sum(int(mask.sum()) for mask in masks)
    if tokens == 0:
        raise InvalidInputError("The calibration text is empty.", hint="Give at least some hundred sentences.")
    states = [module.embeddings(batch["input_ids"], batch.get("token_type_ids")) for batch in inputs]
    statistics: dict[tuple[int, Site], InputStatistics] = {}
    similarity: dict[int, float] = {}
    for layer, encoder_layer in zip(network.layers, module.layers, strict=True):
        assert isinstance(encoder_layer, EncoderLayer)
        states, found, similarity[layer.index] = _run_layer(encoder_layer, states, masks, tokens)
        statistics.update({(layer.index, site): values for site, values in found.items()})
    return Calibration(statistics, tokens, similarity)


def _checked(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    if not {"input_ids", "attention_mask"} <= batch.keys():
        raise InvalidInputError(
            f"A calibration batch has {', '.join(sorted(batch))} only.",
            hint="Give input_ids and attention_mask as the tokenizer returns them.",
        )
    return batch


def _run_layer(
    layer: EncoderLayer, states: list[Tensor], masks: list[Tensor], tokens: int
) -> tuple[list[Tensor], dict[Site, InputStatistics], float]:
    """Push all batches through one layer; return the new states, the layer's statistics and its mean similarity."""
    accumulators = {site: Accumulator(_width(linear)) for site, linear in _readers(layer).items()}
    selections = {site: _selection(tokens, _width(linear)) for site, linear in _readers(layer).items()}
    captured: dict[Site, Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(lambda _, arguments, site=site: captured.update({site: arguments[0]}))
        for site, linear in _readers(layer).items()
    ]
    outputs: list[Tensor] = []
    start, cosine = 0, 0.0
    try:
        for state, mask in zip(states, masks, strict=True):
            output = layer(state, mask[:, None, None, :])
            stop = start + int(mask.sum())
            for site, values in captured.items():
                accumulators[site].add(values[mask], selections[site][start:stop])
            cosine += float(functional.cosine_similarity(state[mask], output[mask], dim=-1).sum())
            outputs.append(output)
            start = stop
    finally:
        for hook in hooks:
            hook.remove()
    return outputs, {site: accumulator.finish() for site, accumulator in accumulators.items()}, cosine / tokens


def _readers(layer: EncoderLayer) -> dict[Site, nn.Module]:
    """One linear layer that reads each of the layer's distinct inputs; fewer where a branch is gone."""
    readers: dict[Site, nn.Module] = {}
    if layer.attention is not None:
        readers["attention_in"] = layer.attention.query
        readers["attention_out"] = layer.attention.output
    if layer.feed_forward is not None:
        readers["feed_forward_in"] = layer.feed_forward.up
        readers["feed_forward_mid"] = layer.feed_forward.down
    return readers


def _width(linear: nn.Module) -> int:
    matrix = linear.weight if isinstance(linear, nn.Linear) else linear.right
    assert isinstance(matrix, Tensor)
    return int(matrix.shape[1])


def _selection(tokens: int, width: int) -> Tensor:
    """Bool ``[tokens]``: the tokens that count in the moments of an input of ``width`` channels."""
    limit = max(_LEAST_TOKENS, _TOKENS_PER_CHANNEL * width)
    chosen = torch.ones(tokens, dtype=torch.bool)
    if tokens > limit:
        generator = torch.Generator().manual_seed(tokens)
        chosen[torch.randperm(tokens, generator=generator)[limit:]] = False
    return chosen
