"""One padding-masked pass over the calibration text, layer by layer.

All batches go through layer 0, then all through layer 1, and so on: only the statistics of one layer are held in
float64, and the states between layers take ``tokens x hidden`` floats whatever the depth. With a folder, the statistics
of a layer leave the memory when it is done, and a calibration that was killed goes on after the last such layer.
"""

from collections.abc import Callable
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional

from compressors.calibration.accumulator import Accumulator
from compressors.calibration.statistics import Calibration
from compressors.calibration.statistics import InputStatistics
from compressors.calibration.statistics import Site
from compressors.calibration.statistics import join
from compressors.network import EncoderNetwork
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from infra.memory import release_memory
from paretune.artifact.encoder import EncoderLayer

_TOKENS_PER_CHANNEL = 10
_LEAST_TOKENS = 16_384


@torch.no_grad()
def calibrate(
    network: EncoderNetwork,
    batches: Iterable[dict[str, Tensor]],
    *,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Collect the input statistics of every linear layer of ``network``.

    Args:
        network: the dense model.
        batches: ``input_ids`` and ``attention_mask`` (optionally ``token_type_ids``), int64 ``[batch, sequence]``.
            Padding is ignored. Batches of similar lengths are fastest.
        folder: where each layer's statistics are kept, instead of in memory. Layers that an earlier call has left
            there, for the same model and text, only pass on their states.
        progress: called with the number of layers that are done and the number of all.

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
    parts: list[Calibration] = []
    for layer, encoder_layer in zip(network.layers, module.layers, strict=True):
        assert isinstance(encoder_layer, EncoderLayer)
        path = None if folder is None else folder / f"layer.{layer.index}.safetensors"
        part = None if path is None else _finished(path, layer.index, encoder_layer, tokens)
        if part is not None:
            _pass_on(encoder_layer, states, masks)
        else:
            found, similarity = _run_layer(encoder_layer, states, masks, tokens)
            part = Calibration(
                {(layer.index, site): values for site, values in found.items()}, tokens, {layer.index: similarity}
            )
            if path is not None:
                part.save(path)
                part = Calibration.load(path)
                del found
                release_memory()
        parts.append(part)
        if progress is not None:
            progress(len(parts), len(network.layers))
    return join(parts)


def _finished(path: Path, index: int, layer: EncoderLayer, tokens: int) -> Calibration | None:
    """Return what a calibration that was interrupted has left of a layer, if it is of this model and text."""
    try:
        part = Calibration.load(path)
    except InvalidInputError:
        return None
    widths = {(index, site): _width(linear) for site, linear in _readers(layer).items()}
    fits = part.tokens == tokens and {key: source.width for key, source in part.inputs.items()} == widths
    return part if fits else None


def _pass_on(layer: EncoderLayer, states: list[Tensor], masks: list[Tensor]) -> None:
    """Replace the states by those after the layer."""
    for number, mask in enumerate(masks):
        states[number] = layer(states[number], mask[:, None, None, :])


def _checked(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    if not {"input_ids", "attention_mask"} <= batch.keys():
        raise InvalidInputError(
            f"A calibration batch has {', '.join(sorted(batch))} only.",
            hint="Give input_ids and attention_mask as the tokenizer returns them.",
        )
    return batch


def _run_layer(
    layer: EncoderLayer, states: list[Tensor], masks: list[Tensor], tokens: int
) -> tuple[dict[Site, InputStatistics], float]:
    """Replace the states by those after the layer; return its statistics and its mean similarity."""
    accumulators = {site: Accumulator(_width(linear)) for site, linear in _readers(layer).items()}
    selections = {site: _selection(tokens, _width(linear)) for site, linear in _readers(layer).items()}
    captured: dict[Site, Tensor] = {}
    hooks = [
        linear.register_forward_pre_hook(lambda _, arguments, site=site: captured.update({site: arguments[0]}))
        for site, linear in _readers(layer).items()
    ]
    start, cosine = 0, 0.0
    try:
        for number, mask in enumerate(masks):
            state = states[number]
            states[number] = layer(state, mask[:, None, None, :])
            stop = start + int(mask.sum())
            for site in list(captured):
                accumulators[site].add(captured.pop(site)[mask], selections[site][start:stop])
            cosine += float(functional.cosine_similarity(state[mask], states[number][mask], dim=-1).sum())
            start = stop
    finally:
        for hook in hooks:
            hook.remove()
    return {site: accumulators.pop(site).finish() for site in list(accumulators)}, cosine / tokens


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
