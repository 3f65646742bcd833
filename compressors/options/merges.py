"""What becomes of the model where whole layers go: dropped, or merged into the one before (LaCo)."""

from collections.abc import Sequence
from dataclasses import dataclass

from compressors.methods.merging import merge_layers
from compressors.network import EncoderNetwork
from compressors.network import Layer
from compressors.options.branches import Branch
from compressors.options.stitch import StitchedModel

MOST_MERGED = 1
"""Layers that are merged into one, at most: two or more cost several times as much quality, and time to find out."""


@dataclass(frozen=True)
class Merge:
    """Layers ``layer + 1`` to ``layer + merged`` added into ``layer``.

    Attributes:
        layer: Position of the layer that stays.
        merged: How many of the layers after it go into it.
        divergence: Of the whole model with only this done, on the scoring text.
        dropped: The least divergence of dropping ``merged`` consecutive ones of the same layers instead, which costs
            and saves the same.
    """

    layer: int
    merged: int
    divergence: float
    dropped: float


def find_drops(network: EncoderNetwork, model: StitchedModel, layers: int = 1) -> tuple[float, ...]:
    """Return the divergence of dropping so many layers in a row, normalisations included, by the first of them.

    Args:
        network: The dense model.
        model: Scores replacements of its branches.
        layers: How many go at once.
    """
    starts = range(len(network.layers) - layers + 1)
    return tuple(model.divergence(_gone(range(start, start + layers))) for start in starts)


def find_merges(network: EncoderNetwork, model: StitchedModel, drops: Sequence[float]) -> tuple[Merge, ...]:
    """Try every pair of layers that have the same shape.

    Args:
        network: The dense model.
        model: Scores replacements of its branches.
        drops: Divergence of dropping each layer alone.
    """
    found = []
    for merged in range(1, MOST_MERGED + 1):
        dropped = drops if merged == 1 else find_drops(network, model, merged)
        for start in range(len(network.layers) - merged):
            group = network.layers[start : start + merged + 1]
            if _alike(group):
                layer = merge_layers(group)
                branches = _gone(range(start + 1, start + merged + 1))
                branches |= {
                    (start, "attention"): Branch(layer.attention),
                    (start, "feed_forward"): Branch(layer.feed_forward),
                }
                found.append(Merge(start, merged, model.divergence(branches), min(dropped[start : start + 2])))
    return tuple(found)


def _gone(positions: Sequence[int]) -> dict[tuple[int, str], Branch]:
    return {(position, kind): Branch(None) for position in positions for kind in ("attention", "feed_forward")}


def _alike(layers: Sequence[Layer]) -> bool:
    shapes = {
        (layer.attention.heads, layer.feed_forward.intermediate_size)
        for layer in layers
        if layer.attention is not None and layer.feed_forward is not None
    }
    return len(shapes) == 1 and all(layer.attention and layer.feed_forward for layer in layers)
