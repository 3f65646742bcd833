"""A compact encoder whose layers may all differ: the module behind ``paretune.load``.

Shapes: ``B`` batch, ``S`` sequence, ``D`` hidden size, ``H`` heads of a layer, ``K`` head size. Everything is
float32. The module is ordinary torch: it trains, exports and compiles.
"""

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional

from paretune.artifact.structure import AttentionStructure
from paretune.artifact.structure import ClassificationStructure
from paretune.artifact.structure import FeedForwardStructure
from paretune.artifact.structure import LayerStructure
from paretune.artifact.structure import LinearStructure
from paretune.artifact.structure import PoolingStructure
from paretune.artifact.structure import Structure


class LowRankLinear(nn.Module):
    """``y = (x @ right.T) @ left.T + bias``."""

    def __init__(self, structure: LinearStructure) -> None:
        super().__init__()
        assert structure.rank is not None
        self.left = nn.Parameter(torch.empty(structure.outputs, structure.rank))
        self.right = nn.Parameter(torch.empty(structure.rank, structure.inputs))
        self.bias = nn.Parameter(torch.empty(structure.outputs)) if structure.bias else None
        nn.init.xavier_uniform_(self.left)
        nn.init.xavier_uniform_(self.right)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the two factors. ``[..., inputs]`` -> ``[..., outputs]``."""
        return functional.linear(functional.linear(inputs, self.right), self.left, self.bias)


def build_linear(structure: LinearStructure) -> nn.Module:
    """Return a dense or a factorised linear layer."""
    if structure.rank is not None:
        return LowRankLinear(structure)
    return nn.Linear(structure.inputs, structure.outputs, bias=structure.bias)


class SelfAttention(nn.Module):
    """Multi-head self-attention with the heads that are left."""

    def __init__(self, structure: AttentionStructure) -> None:
        super().__init__()
        self.head_size = structure.head_size
        self.query = build_linear(structure.query)
        self.key = build_linear(structure.key)
        self.value = build_linear(structure.value)
        self.output = build_linear(structure.output)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """``hidden`` [B, S, D], ``mask`` bool [B, 1, 1, S], true where attended -> [B, S, D]."""
        query, key, value = (self._split(project(hidden)) for project in (self.query, self.key, self.value))
        context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        output: Tensor = self.output(context.transpose(1, 2).flatten(2))
        return output

    def _split(self, projected: Tensor) -> Tensor:
        """[B, S, H * K] -> [B, H, S, K]."""
        batch, length, _ = projected.shape
        return projected.reshape(batch, length, -1, self.head_size).transpose(1, 2)


class FeedForward(nn.Module):
    """``down(activation(up(x)))``."""

    def __init__(self, structure: FeedForwardStructure) -> None:
        super().__init__()
        self.up = build_linear(structure.up)
        self.activation: nn.Module = (
            nn.ReLU()
            if structure.activation == "relu"
            else nn.GELU(approximate="tanh" if structure.activation == "gelu_tanh" else "none")
        )
        self.down = build_linear(structure.down)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, S, D] -> [B, S, D]."""
        output: Tensor = self.down(self.activation(self.up(hidden)))
        return output


class EncoderLayer(nn.Module):
    """Post-norm layer; a missing branch contributes nothing, its normalisation stays."""

    def __init__(self, structure: LayerStructure, hidden_size: int) -> None:
        super().__init__()
        self.attention = SelfAttention(structure.attention) if structure.attention else None
        self.attention_norm = nn.LayerNorm(hidden_size, eps=structure.attention_norm_epsilon)
        self.feed_forward = FeedForward(structure.feed_forward) if structure.feed_forward else None
        self.feed_forward_norm = nn.LayerNorm(hidden_size, eps=structure.feed_forward_norm_epsilon)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """``hidden`` [B, S, D], ``mask`` bool [B, 1, 1, S] -> [B, S, D]."""
        if self.attention is not None:
            hidden = hidden + self.attention(hidden, mask)
        hidden = self.attention_norm(hidden)
        if self.feed_forward is not None:
            hidden = hidden + self.feed_forward(hidden)
        normalised: Tensor = self.feed_forward_norm(hidden)
        return normalised


class Embeddings(nn.Module):
    """Word + position (+ token type) embeddings, normalised."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        sizes, width = structure.embeddings, structure.hidden_size
        self.word = nn.Embedding(sizes.vocabulary, width)
        self.position = nn.Embedding(sizes.positions, width)
        self.token_type = nn.Embedding(sizes.token_types, width) if sizes.token_types else None
        self.norm = nn.LayerNorm(width, eps=sizes.norm_epsilon)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """int64 [B, S] -> [B, S, D]."""
        embedded = self.word(input_ids) + self.position.weight[: input_ids.shape[1]]
        if self.token_type is not None:
            # A model of one type does not tell the texts of a pair apart, though a tokenizer may number them.
            one = token_type_ids is None or self.token_type.num_embeddings == 1
            embedded = embedded + (self.token_type.weight[0] if one else self.token_type(token_type_ids))
        normalised: Tensor = self.norm(embedded)
        return normalised


class ClassificationHead(nn.Module):
    """Class scores from the first token."""

    def __init__(self, structure: ClassificationStructure) -> None:
        super().__init__()
        self.dense = build_linear(structure.dense) if structure.dense else None
        self.activation = nn.Tanh() if structure.activation == "tanh" else nn.ReLU()
        self.classifier = build_linear(structure.classifier)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """[B, S, D] -> logits [B, labels]."""
        first = hidden[:, 0]
        if self.dense is not None:
            first = self.activation(self.dense(first))
        logits: Tensor = self.classifier(first)
        return logits


class PoolingHead(nn.Module):
    """One vector for the text: the mean over attended tokens, or the first token."""

    def __init__(self, structure: PoolingStructure) -> None:
        super().__init__()
        self.pooling = structure.pooling
        self.normalize = structure.normalize

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """``hidden`` [B, S, D], ``attention_mask`` [B, S] -> sentence embedding [B, D]."""
        if self.pooling == "cls":
            pooled = hidden[:, 0]
        else:
            weights = attention_mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * weights).sum(1) / weights.sum(1).clamp_min(1e-9)
        return functional.normalize(pooled, dim=-1) if self.normalize else pooled


class CompressedEncoder(nn.Module):
    """An encoder with its task head; ``structure`` says what it is made of.

    Call it with ``input_ids`` and ``attention_mask``, int64 ``[B, S]``, and ``token_type_ids`` where the model knows
    more than one type (all zero when left out). Returns logits ``[B, labels]`` or sentence embeddings ``[B, D]``.
    """

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.embeddings = Embeddings(structure)
        self.layers = nn.ModuleList([EncoderLayer(layer, structure.hidden_size) for layer in structure.layers])
        self.head: nn.Module = (
            ClassificationHead(structure.head)
            if isinstance(structure.head, ClassificationStructure)
            else PoolingHead(structure.head)
        )

    def encode(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return the states of the last layer, ``[B, S, D]``."""
        hidden: Tensor = self.embeddings(input_ids, token_type_ids)
        mask = attention_mask.bool()[:, None, None, :]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Return logits ``[B, labels]`` or sentence embeddings ``[B, D]``."""
        output: Tensor = self.head(self.encode(input_ids, attention_mask, token_type_ids), attention_mask)
        return output
