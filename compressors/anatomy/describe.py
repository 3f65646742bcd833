"""Size and shape of a network."""

from compressors.description import Anatomy
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.tensors import named_tensors


def describe(network: EncoderNetwork) -> Anatomy:
    """Return the anatomy that the search builds its space from."""
    head_sizes = {layer.attention.head_size for layer in network.layers if layer.attention is not None}
    activations = [layer.feed_forward.activation for layer in network.layers if layer.feed_forward is not None]
    token_type = network.embeddings.token_type
    return Anatomy(
        model_type=network.model_type,
        task="sequence-classification" if isinstance(network.head, ClassificationHead) else "embedding",
        layers=len(network.layers),
        hidden_size=network.hidden_size,
        heads=tuple(layer.attention.heads if layer.attention else 0 for layer in network.layers),
        head_size=max(head_sizes, default=0),
        intermediate_size=tuple(
            layer.feed_forward.intermediate_size if layer.feed_forward else 0 for layer in network.layers
        ),
        vocabulary_size=int(network.embeddings.word.shape[0]),
        max_sequence_length=network.max_sequence_length,
        labels=tuple(network.labels),
        parameters=sum(tensor.numel() for tensor in named_tensors(network).values()),
        has_token_types=token_type is not None and token_type.shape[0] > 1,
        activation=next(iter(activations), None),
    )
