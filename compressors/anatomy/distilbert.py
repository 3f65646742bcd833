"""DistilBERT: no token types, names of its own, a ReLU in the head."""

from typing import Any

from transformers import DistilBertForSequenceClassification
from transformers import DistilBertModel
from transformers import PreTrainedModel

from compressors.anatomy.family import Family
from compressors.anatomy.family import activation
from compressors.anatomy.family import linear
from compressors.anatomy.family import norm
from compressors.anatomy.family import tensor
from compressors.network import Attention
from compressors.network import ClassificationHead
from compressors.network import Embeddings
from compressors.network import FeedForward
from compressors.network import Layer


class DistilBert(Family):
    """Adapter for :class:`transformers.DistilBertModel`."""

    model_types = ("distilbert",)

    def model_class(self, model_type: str, task: str) -> type[PreTrainedModel]:
        """Return the classifier or the bare encoder."""
        return DistilBertForSequenceClassification if task == "sequence-classification" else DistilBertModel

    def check(self, config: Any) -> None:
        """Accept every configuration: DistilBERT has no variants that the neutral form cannot express."""

    def encoder(self, model: Any) -> Any:
        """Return the encoder without its head."""
        return getattr(model, "distilbert", model)

    def embeddings(self, encoder: Any, config: Any) -> Embeddings:
        """Read the two tables."""
        module = encoder.embeddings
        return Embeddings(
            word=tensor(module.word_embeddings.weight),
            position=tensor(module.position_embeddings.weight),
            token_type=None,
            norm=norm(module.LayerNorm),
        )

    def layers(self, encoder: Any, config: Any) -> list[Layer]:
        """Read the transformer layers in order."""
        kind = activation(config.activation)
        return [
            Layer(
                index=index,
                attention=Attention(
                    query=linear(module.attention.q_lin),
                    key=linear(module.attention.k_lin),
                    value=linear(module.attention.v_lin),
                    output=linear(module.attention.out_lin),
                    heads=module.attention.n_heads,
                    head_size=module.attention.attention_head_size,
                ),
                attention_norm=norm(module.sa_layer_norm),
                feed_forward=FeedForward(linear(module.ffn.lin1), linear(module.ffn.lin2), kind),
                feed_forward_norm=norm(module.output_layer_norm),
            )
            for index, module in enumerate(encoder.transformer.layer)
        ]

    def classification_head(self, model: Any) -> ClassificationHead:
        """The dense layer before the classifier, and the classifier."""
        return ClassificationHead(linear(model.pre_classifier), "relu", linear(model.classifier))
