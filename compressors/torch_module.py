"""Between the neutral network and the torch module that users download."""

import copy

import torch
from torch import Tensor

from compressors.network import Attention
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear
from compressors.network import PoolingHead
from compressors.tensors import named_tensors
from compressors.tensors import tensor_slots
from infra.errors import InvalidInputError
from paretune.artifact.encoder import CompressedEncoder
from paretune.artifact.structure import AttentionStructure
from paretune.artifact.structure import ClassificationStructure
from paretune.artifact.structure import EmbeddingsStructure
from paretune.artifact.structure import FeedForwardStructure
from paretune.artifact.structure import LayerStructure
from paretune.artifact.structure import LinearStructure
from paretune.artifact.structure import PoolingStructure
from paretune.artifact.structure import Structure


def to_module(network: EncoderNetwork, *, share: bool = False) -> CompressedEncoder:
    """Return the network as a torch module in eval mode.

    Args:
        network: any network, compressed or not.
        share: let the module use the network's tensors instead of copies. Cheaper; the module must not be trained.
    """
    with torch.device("meta"):
        module = CompressedEncoder(structure_of(network))
    weights = {name: tensor if share else tensor.clone() for name, tensor in named_tensors(network).items()}
    module.load_state_dict(weights, strict=True, assign=True)
    return module.eval()


def with_tensors(network: EncoderNetwork, tensors: dict[str, Tensor]) -> EncoderNetwork:
    """Return a copy of ``network`` that holds copies of ``tensors`` (float32, CPU) in place of its own.

    Raises:
        InvalidInputError: names or shapes differ from the network's.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in named_tensors(network).items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != given:
        different = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
        raise InvalidInputError(
            f"The weights do not fit the structure; {len(different)} tensors differ, first {different[0]}.",
            hint="Trained weights belong to exactly one structure: use the recipe that they were trained for.",
        )
    # Every tensor is replaced below, so the copy need not duplicate any: they enter the memo as themselves.
    memo = {id(tensor): tensor for tensor in named_tensors(network).values()}
    result = copy.deepcopy(network, memo)
    for name, owner, attribute in tensor_slots(result):
        setattr(owner, attribute, tensors[name].detach().to("cpu", torch.float32, copy=True).contiguous())
    return result


def structure_of(network: EncoderNetwork) -> Structure:
    """Describe the network as ``structure.json`` does."""
    embeddings = network.embeddings
    return Structure(
        model_type=network.model_type,
        hidden_size=network.hidden_size,
        embeddings=EmbeddingsStructure(
            vocabulary=embeddings.word.shape[0],
            positions=embeddings.position.shape[0],
            token_types=None if embeddings.token_type is None else embeddings.token_type.shape[0],
            norm_epsilon=embeddings.norm.epsilon,
        ),
        layers=tuple(_layer(layer) for layer in network.layers),
        head=_head(network.head),
        labels=tuple(network.labels),
        max_sequence_length=network.max_sequence_length,
    )


def _layer(layer: Layer) -> LayerStructure:
    return LayerStructure(
        index=layer.index,
        attention=None if layer.attention is None else _attention(layer.attention),
        attention_norm_epsilon=layer.attention_norm.epsilon,
        feed_forward=None if layer.feed_forward is None else _feed_forward(layer.feed_forward),
        feed_forward_norm_epsilon=layer.feed_forward_norm.epsilon,
    )


def _attention(attention: Attention) -> AttentionStructure:
    return AttentionStructure(
        heads=attention.heads,
        head_size=attention.head_size,
        query=_linear(attention.query),
        key=_linear(attention.key),
        value=_linear(attention.value),
        output=_linear(attention.output),
    )


def _feed_forward(branch: FeedForward) -> FeedForwardStructure:
    return FeedForwardStructure(activation=branch.activation, up=_linear(branch.up), down=_linear(branch.down))


def _head(head: ClassificationHead | PoolingHead) -> ClassificationStructure | PoolingStructure:
    if isinstance(head, PoolingHead):
        return PoolingStructure(pooling=head.pooling, normalize=head.normalize)
    return ClassificationStructure(
        dense=None if head.dense is None else _linear(head.dense),
        activation=head.activation,
        classifier=_linear(head.classifier),
    )


def _linear(linear: Linear) -> LinearStructure:
    return LinearStructure(
        inputs=linear.inputs,
        outputs=linear.outputs,
        rank=linear.rank,
        bias=linear.bias is not None,
        bits=linear.bits,
    )
