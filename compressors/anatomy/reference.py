"""The unchanged Hugging Face model behind the inputs and the output of the exported forms."""

from pathlib import Path
from typing import Any

from torch import Tensor
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel

from compressors.anatomy.checkpoint import open_checkpoint
from compressors.anatomy.pooling import read_pooling
from compressors.network import PoolingHead


def load_reference_model(model_dir: Path, task: str) -> nn.Module:
    """Load the library's own model, in eval mode: the dense export baseline and the yardstick of audits.

    The module takes ``input_ids`` and ``attention_mask`` (and ``token_type_ids`` where the model has more than one
    type), int64 ``[batch, sequence]``, and returns logits ``[batch, labels]`` or sentence embeddings
    ``[batch, hidden]``, float32.

    Raises:
        InvalidModelError: as for :func:`compressors.anatomy.load_network`.
    """
    checkpoint = open_checkpoint(model_dir, task)
    head = None if task == "sequence-classification" else read_pooling(model_dir)
    typed = getattr(checkpoint.model.config, "type_vocab_size", 1) > 1
    module_class = _TypedReference if typed else _Reference
    return module_class(checkpoint.model, head).eval()


class _Reference(nn.Module):
    def __init__(self, model: PreTrainedModel, pooling: PoolingHead | None) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self._finish(self.model(input_ids=input_ids, attention_mask=attention_mask), attention_mask)

    def _finish(self, output: Any, attention_mask: Tensor) -> Tensor:
        if self.pooling is None:
            logits: Tensor = output.logits
            return logits
        hidden: Tensor = output.last_hidden_state
        if self.pooling.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1e-9)
        return functional.normalize(pooled, dim=-1) if self.pooling.normalize else pooled


class _TypedReference(_Reference):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:  # type: ignore[override]
        output = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return self._finish(output, attention_mask)
