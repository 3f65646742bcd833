"""BERT (also MiniLM and every other checkpoint of that architecture)."""

from typing import Any

from transformers import BertForSequenceClassification
from transformers import BertModel
from transformers import PreTrainedModel

from compressors.anatomy.family import Family
from compressors.anatomy.family import activation
from compressors.anatomy.family import linear
from compressors.anatomy.family import norm
from compressors.anatomy.family import require
from compressors.anatomy.family import tensor
from compressors.network import Attention
from compressors.network import ClassificationHead
from compressors.network import Embeddings
from compressors.network import FeedForward
from compressors.network import Layer


class Bert(Family):
    """Adapter for :class:`transformers.BertModel`."""

    model_types = ("bert",)

    def model_class(self, model_type: str, task: str) -> type[PreTrainedModel]:
        """Return the classifier or the bare encoder."""
        return BertForSequenceClassification if task == "sequence-classification" else BertModel

    def check(self, config: Any) -> None:
        """Refuse decoders and relative positions."""
        check_bidirectional_absolute(config)

    def encoder(self, model: Any) -> Any:
        """Return the :class:`transformers.BertModel`."""
        return getattr(model, "bert", model)

    def embeddings(self, encoder: Any, config: Any) -> Embeddings:
        """Read the three tables."""
        return read_embeddings(encoder.embeddings, first_position=0)

    def layers(self, encoder: Any, config: Any) -> list[Layer]:
        """Read the transformer layers in order."""
        return read_layers(encoder, config)

    def classification_head(self, model: Any) -> ClassificationHead:
        """The pooler's dense layer and the classifier."""
        return ClassificationHead(linear(model.bert.pooler.dense), "tanh", linear(model.classifier))


def check_bidirectional_absolute(config: Any) -> None:
    """Refuse what BERT-like configurations can ask for beyond the plain encoder."""
    require(
        not getattr(config, "is_decoder", False) and not getattr(config, "add_cross_attention", False),
        "The model is configured as a decoder.",
        "Upload an encoder: set is_decoder and add_cross_attention to false if the weights are those of an encoder.",
    )
    kind = getattr(config, "position_embedding_type", None) or "absolute"
    require(
        kind == "absolute",
        f"Position embeddings of type {kind!r} are not supported.",
        "Use a checkpoint with absolute position embeddings.",
    )


def read_embeddings(module: Any, first_position: int) -> Embeddings:
    """Read BERT-like tables; ``first_position`` is the row of the position table that the first token uses."""
    return Embeddings(
        word=tensor(module.word_embeddings.weight),
        position=tensor(module.position_embeddings.weight[first_position:]),
        token_type=tensor(module.token_type_embeddings.weight),
        norm=norm(module.LayerNorm),
    )


def read_layers(encoder: Any, config: Any) -> list[Layer]:
    """Read BERT-like layers: BERT, RoBERTa and XLM-RoBERTa name them alike."""
    kind = activation(config.hidden_act)
    return [_read_layer(index, module, kind) for index, module in enumerate(encoder.encoder.layer)]


def _read_layer(index: int, module: Any, kind: Any) -> Layer:
    attention = module.attention.self
    return Layer(
        index=index,
        attention=Attention(
            query=linear(attention.query),
            key=linear(attention.key),
            value=linear(attention.value),
            output=linear(module.attention.output.dense),
            heads=attention.num_attention_heads,
            head_size=attention.attention_head_size,
        ),
        attention_norm=norm(module.attention.output.LayerNorm),
        feed_forward=FeedForward(linear(module.intermediate.dense), linear(module.output.dense), kind),
        feed_forward_norm=norm(module.output.LayerNorm),
    )
