"""RoBERTa and XLM-RoBERTa: BERT's layers, positions that start after the padding index, another head."""

from typing import Any

from transformers import PreTrainedModel
from transformers import RobertaForSequenceClassification
from transformers import RobertaModel
from transformers import XLMRobertaForSequenceClassification
from transformers import XLMRobertaModel

from compressors.anatomy.bert import check_bidirectional_absolute
from compressors.anatomy.bert import read_embeddings
from compressors.anatomy.bert import read_layers
from compressors.anatomy.family import Family
from compressors.anatomy.family import linear
from compressors.anatomy.family import require
from compressors.network import ClassificationHead
from compressors.network import Embeddings
from compressors.network import Layer

_CLASSES: dict[tuple[str, str], type[PreTrainedModel]] = {
    ("roberta", "sequence-classification"): RobertaForSequenceClassification,
    ("roberta", "embedding"): RobertaModel,
    ("xlm-roberta", "sequence-classification"): XLMRobertaForSequenceClassification,
    ("xlm-roberta", "embedding"): XLMRobertaModel,
}


class Roberta(Family):
    """Adapter for :class:`transformers.RobertaModel` and :class:`transformers.XLMRobertaModel`."""

    model_types = ("roberta", "xlm-roberta")

    def model_class(self, model_type: str, task: str) -> type[PreTrainedModel]:
        """Return the classifier or the bare encoder."""
        return _CLASSES[model_type, task]

    def check(self, config: Any) -> None:
        """Refuse decoders, relative positions, and a missing padding index, from which positions are counted."""
        check_bidirectional_absolute(config)
        require(
            config.pad_token_id is not None,
            "config.json has no pad_token_id, from which RoBERTa counts its positions.",
            "Add pad_token_id to config.json (1 for most RoBERTa checkpoints).",
        )

    def encoder(self, model: Any) -> Any:
        """Return the encoder without its head."""
        return getattr(model, "roberta", model)

    def embeddings(self, encoder: Any, config: Any) -> Embeddings:
        """Read the tables; the first token uses the row after the padding index."""
        return read_embeddings(encoder.embeddings, first_position=config.pad_token_id + 1)

    def layers(self, encoder: Any, config: Any) -> list[Layer]:
        """Read the transformer layers in order."""
        return read_layers(encoder, config)

    def classification_head(self, model: Any) -> ClassificationHead:
        """The head's dense layer and its output projection."""
        return ClassificationHead(linear(model.classifier.dense), "tanh", linear(model.classifier.out_proj))
