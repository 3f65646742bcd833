"""``structure.json``: everything that is needed to rebuild the module of a compressed encoder, without its weights.

Layers may differ from each other in heads, width, ranks and bit-widths, and either branch of a layer may be missing,
which no Hugging Face configuration can say. The file is versioned; a reader refuses versions that it does not know.
"""

from typing import Annotated
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

Positive = Annotated[int, Field(ge=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LinearStructure(_Frozen):
    """One linear layer: dense ``[outputs, inputs]``, or ``left [outputs, rank] @ right [rank, inputs]``."""

    inputs: Positive
    outputs: Positive
    rank: Positive | None = None
    bias: bool = True
    bits: Literal[4, 8, 16, 32] = 32
    """Weight bit-width that the model was evaluated with. The file always holds float32 weights and the module always
    computes in float32: ``bits`` records what to quantise to (per output channel, symmetric, scale = max|w| / (2^(bits
    - 1) - 1)), and where."""


class AttentionStructure(_Frozen):
    """Self-attention of one layer."""

    heads: Positive
    head_size: Positive
    query: LinearStructure
    key: LinearStructure
    value: LinearStructure
    output: LinearStructure


class FeedForwardStructure(_Frozen):
    """Feed-forward branch of one layer."""

    activation: Literal["gelu", "gelu_tanh", "relu"]
    up: LinearStructure
    down: LinearStructure


class LayerStructure(_Frozen):
    """One layer; a branch that was removed is ``None``."""

    index: Annotated[int, Field(ge=0)]
    """Index of the layer in the model before compression."""
    attention: AttentionStructure | None
    attention_norm_epsilon: float
    feed_forward: FeedForwardStructure | None
    feed_forward_norm_epsilon: float


class EmbeddingsStructure(_Frozen):
    """Sizes of the embedding tables."""

    vocabulary: Positive
    positions: Positive
    token_types: Positive | None
    norm_epsilon: float


class ClassificationStructure(_Frozen):
    """A classifier on the first token."""

    kind: Literal["classification"] = "classification"
    dense: LinearStructure | None
    activation: Literal["tanh", "relu"]
    classifier: LinearStructure


class PoolingStructure(_Frozen):
    """A pooled sentence embedding."""

    kind: Literal["pooling"] = "pooling"
    pooling: Literal["mean", "cls"]
    normalize: bool


class Structure(_Frozen):
    """The whole encoder."""

    format: Literal["paretune-encoder"] = "paretune-encoder"
    version: Literal[1] = 1
    model_type: str
    """Family that the model was compressed from, such as ``bert``."""
    hidden_size: Positive
    embeddings: EmbeddingsStructure
    layers: tuple[LayerStructure, ...]
    head: Annotated[ClassificationStructure | PoolingStructure, Field(discriminator="kind")]
    labels: tuple[str, ...] = ()
    """Class names in output order."""
    max_sequence_length: Positive

    @property
    def has_token_types(self) -> bool:
        """Whether the module reads ``token_type_ids``."""
        return (self.embeddings.token_types or 1) > 1
