"""The neutral form of an encoder: what every method edits and every exporter writes.

An adapter (:mod:`compressors.anatomy`) turns a Hugging Face model into an :class:`EncoderNetwork`; methods return
edited copies; exporters turn it into ONNX or torch. All tensors are torch, float32, on the CPU. Shapes: ``hidden`` is
the residual width, ``heads`` the number of heads of *this* layer, ``head_size`` their width, ``intermediate`` the FFN
width of *this* layer.
"""

from dataclasses import dataclass
from dataclasses import field
from typing import Literal

from torch import Tensor

Activation = Literal["gelu", "gelu_tanh", "relu"]


@dataclass
class Linear:
    """``y = x @ weight.T + bias``, or ``y = (x @ right.T) @ left.T + bias`` when factorised.

    Attributes:
        weight: ``[out, in]``, or ``None`` when factorised.
        left: ``[out, rank]``.
        right: ``[rank, in]``.
        bias: ``[out]`` or ``None``.
        bits: weight bit-width in the deployed graph (32, 16, 8 or 4); the tensors here stay float32.
    """

    weight: Tensor | None
    bias: Tensor | None = None
    left: Tensor | None = None
    right: Tensor | None = None
    bits: int = 32

    @property
    def outputs(self) -> int:
        """Width of ``y``."""
        matrix = self.weight if self.left is None else self.left
        assert matrix is not None
        return int(matrix.shape[0])

    @property
    def inputs(self) -> int:
        """Width of ``x``."""
        matrix = self.weight if self.right is None else self.right
        assert matrix is not None
        return int(matrix.shape[1])

    @property
    def rank(self) -> int | None:
        """Number of columns of ``left``; ``None`` when the layer is not factorised."""
        return None if self.left is None else int(self.left.shape[1])

    def matrix(self) -> Tensor:
        """Return the ``[out, in]`` matrix that the layer multiplies by, multiplied out when factorised."""
        if self.weight is not None:
            return self.weight
        assert self.left is not None
        assert self.right is not None
        return self.left @ self.right


@dataclass
class Norm:
    """LayerNorm over the last axis: ``weight`` and ``bias`` are ``[hidden]``."""

    weight: Tensor
    bias: Tensor
    epsilon: float


@dataclass
class Attention:
    """Self-attention with ``heads`` heads.

    Query, key, value: ``[heads * head_size, hidden]``, head-major; output: ``[hidden, heads * head_size]``.
    """

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    heads: int
    head_size: int


@dataclass
class FeedForward:
    """``down(activation(up(x)))``. up: ``[intermediate, hidden]``, down: ``[hidden, intermediate]``."""

    up: Linear
    down: Linear
    activation: Activation

    @property
    def intermediate_size(self) -> int:
        """Number of channels between ``up`` and ``down``."""
        return self.down.inputs


@dataclass
class Layer:
    """Post-norm transformer layer: ``x = norm(x + branch(x))``, twice.

    A removed branch is ``None``; its norm stays (``x = norm(x)``).
    """

    index: int
    """Index in the dense model."""
    attention: Attention | None
    attention_norm: Norm
    feed_forward: FeedForward | None
    feed_forward_norm: Norm


@dataclass
class Embeddings:
    """Sum of word, position and token-type embeddings, then a norm.

    Attributes:
        word: ``[vocabulary, hidden]``.
        position: ``[positions, hidden]``, already shifted so that row 0 belongs to the first token
            (RoBERTa's positions start after the padding index).
        token_type: ``[types, hidden]`` or ``None`` (DistilBERT).
    """

    word: Tensor
    position: Tensor
    token_type: Tensor | None
    norm: Norm


@dataclass
class ClassificationHead:
    """Reads the first token: ``classifier(activation(dense(x[:, 0])))``; without ``dense``: ``classifier(x[:, 0])``."""

    dense: Linear | None
    activation: Literal["tanh", "relu"]
    classifier: Linear


@dataclass
class PoolingHead:
    """Sentence embedding: pool over attended tokens, optionally scale to unit length."""

    pooling: Literal["mean", "cls"] = "mean"
    normalize: bool = True


@dataclass
class EncoderNetwork:
    """A whole encoder with its task head.

    Inputs of every exported form: ``input_ids`` and ``attention_mask`` int64 ``[batch, sequence]``, and
    ``token_type_ids`` where ``embeddings.token_type`` has more than one row. Output: ``logits`` ``[batch, labels]`` or
    ``sentence_embedding`` ``[batch, hidden]``, float32.
    """

    model_type: str
    embeddings: Embeddings
    layers: list[Layer]
    head: ClassificationHead | PoolingHead
    labels: list[str] = field(default_factory=list)
    """Names of the classes in output order; empty for embeddings."""
    max_sequence_length: int = 512

    @property
    def hidden_size(self) -> int:
        """Width of the residual stream."""
        return int(self.embeddings.word.shape[1])
