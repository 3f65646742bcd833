"""Whether a runtime fuses every block of a graph, counted against the blocks that the network has.

A comparison of two graphs is only fair if the runtime finds its fused operators in both. One that is missed, because
a shape was not noted or a constant was written in another way, costs more than many a compression wins.
"""

from collections.abc import Mapping

from compressors.network import EncoderNetwork

NORMS = ("LayerNormalization", "SkipLayerNormalization", "EmbedLayerNormalization")
ATTENTIONS = ("Softmax", "MultiHeadAttention", "Attention")
GELUS = ("Gelu", "BiasGelu", "FastGelu", "QuickGelu")
FUSED = {"norms": NORMS, "attentions": ATTENTIONS, "activations": GELUS}
"""Operators that a block of each kind becomes when it is fused; whatever else it becomes is slower."""


def expected_fusions(network: EncoderNetwork) -> dict[str, int]:
    """Return how many fused operators of each kind of :data:`FUSED` the surviving blocks of a network should become.

    Every layer has its two norms, whatever branches it has lost; the embeddings have one.
    """
    feed_forward = [layer.feed_forward for layer in network.layers if layer.feed_forward is not None]
    return {
        "norms": 1 + 2 * len(network.layers),
        "attentions": sum(layer.attention is not None for layer in network.layers),
        "activations": sum(branch.activation in ("gelu", "gelu_tanh") for branch in feed_forward),
    }


def fusions(operators: Mapping[str, int]) -> dict[str, int]:
    """Return how many fused operators of each kind an executed graph has, from the histogram of its operators."""
    return {kind: sum(operators.get(name, 0) for name in names) for kind, names in FUSED.items()}
