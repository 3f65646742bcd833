"""One walk over the layers, dense and compressed model side by side, that re-solves the compressed one on the way."""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from compressors.calibration.statistics import Calibration
from compressors.export.simulation import FileArithmetic
from compressors.export.simulation import stored_embeddings
from compressors.export.simulation import stored_linear
from compressors.forward import activate
from compressors.forward import apply_linear
from compressors.forward import attention_context
from compressors.forward import feed_forward_output
from compressors.forward import fold_value_bias
from compressors.forward import normalise
from compressors.methods.channel_regression import ChannelSums
from compressors.methods.channel_regression import refit_channels
from compressors.methods.regression import Pairs
from compressors.methods.regression import refit
from compressors.methods.removal_order import expand_groups
from compressors.network import Attention
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear
from compressors.network import Norm
from compressors.options.scoring import Batch
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.removal import kept_channels
from compressors.removal import kept_heads
from compressors.torch_module import to_module

Parts = frozenset[Literal["matrices", "normalisations"]]

FIRST_TOKEN_WEIGHT = 20.0
"""In the last layer of a classifier, whose head reads nothing but the first token."""


@dataclass
class _Stream:
    """One batch on its way through both models."""

    dense: Tensor
    current: Tensor
    attended: Tensor
    held: bool

    @property
    def mask(self) -> Tensor:
        return self.attended[:, None, None, :]


class Walk:
    """Pushes all batches through both models, layer by layer, and re-solves on the way.

    The compressed model computes as its file does: with the weights that are stored, and with what the layers of few
    bits read rounded where the file rounds it (calibrated grids are taken for those of each text).

    Args:
        network: The dense model.
        candidate: What was made of it.
        calibration: Of the dense model; its orders say which heads and channels are left.
        recipe: The candidate's.
        batches: Text, and whether it is held out.
        parts: What is re-solved; nothing: the walk only says how far apart the outputs are.
    """

    def __init__(
        self,
        network: EncoderNetwork,
        candidate: EncoderNetwork,
        calibration: Calibration,
        recipe: Recipe,
        batches: Iterable[tuple[Batch, bool]],
        parts: Parts,
    ) -> None:
        self._network, self._candidate = network, candidate
        self._calibration, self._recipe, self._parts = calibration, recipe, parts
        self._file = FileArithmetic.of(recipe, grid="text")
        self._first_weight = 1.0
        embed = [_embedding_sum(network, None), _embedding_sum(candidate, recipe.quantization)]
        self._streams = []
        for batch, held in batches:
            dense, current = (module(batch["input_ids"], batch.get("token_type_ids")) for module in embed)
            self._streams.append(_Stream(dense, current, batch["attention_mask"].bool(), held))

    def run(self) -> EncoderNetwork:
        """Return the candidate with what was re-solved.

        What follows a norm in the dense model and was removed, the norm is asked to stand in for.
        """
        dense, kept = self._network.layers, {layer.index: layer for layer in self._candidate.layers}
        positions = [position for position, layer in enumerate(dense) if layer.index in kept]
        ends = [*positions, len(dense)]
        norm = self._normalise(
            self._candidate.embeddings.norm,
            [stream.current for stream in self._streams],
            self._network.embeddings.norm,
            [stream.dense for stream in self._streams],
            dense[: ends[0]],
        )
        layers = []
        for position, end in zip(positions, ends[1:], strict=True):
            if end == len(dense) and isinstance(self._network.head, ClassificationHead):
                self._first_weight = FIRST_TOKEN_WEIGHT
            layer = kept[dense[position].index]
            attention, attention_norm = self._attention(dense[position], layer)
            branch, branch_norm = self._feed_forward(dense[position], layer, dense[position + 1 : end])
            layers.append(
                replace(
                    layer,
                    attention=attention,
                    attention_norm=attention_norm,
                    feed_forward=branch,
                    feed_forward_norm=branch_norm,
                )
            )
        return replace(self._candidate, embeddings=replace(self._candidate.embeddings, norm=norm), layers=layers)

    def outputs(self) -> tuple[Tensor, Tensor]:
        """Return what the dense and the compressed model say about the held-out text, after :meth:`run`."""
        head = to_module(self._candidate, share=True).head
        held = [stream for stream in self._streams if stream.held]
        dense = torch.cat([head(stream.dense, stream.attended) for stream in held])
        return dense, torch.cat([head(stream.current, stream.attended) for stream in held])

    def _attention(self, dense: Layer, layer: Layer) -> tuple[Attention | None, Norm]:
        """Move all streams over the layer's attention and its norm; return both as re-solved."""
        changes = [
            torch.zeros_like(stream.dense)
            if dense.attention is None
            else apply_linear(attention_context(dense.attention, stream.dense, stream.mask), dense.attention.output)
            for stream in self._streams
        ]
        repaired: Attention | None = None
        sums = [stream.current for stream in self._streams]
        if layer.attention is not None:
            found = layer.attention
            heads = kept_heads(dense, self._calibration, self._recipe.criterion, found.heads)
            rows = expand_groups(heads, found.head_size)
            assert dense.attention is not None
            repaired = replace(
                found,
                query=self._reader(found.query, dense.attention.query, rows),
                key=self._reader(found.key, dense.attention.key, rows),
                value=self._reader(found.value, dense.attention.value, rows),
            )
            repaired = fold_value_bias(repaired)  # as in the file, where it goes through neither rounding
            stored = replace(
                repaired,
                query=self._stored(repaired.query),
                key=self._stored(repaired.key),
                value=self._stored(repaired.value),
            )
            contexts = [attention_context(stored, s.current, s.mask, self._file.operand) for s in self._streams]
            repaired.output = self._writer(repaired.output, contexts, changes)
            sums = self._written(repaired.output, contexts)
        return repaired, self._after_branch(layer.attention_norm, sums, dense.attention_norm, changes)

    def _feed_forward(self, dense: Layer, layer: Layer, removed: Sequence[Layer]) -> tuple[FeedForward | None, Norm]:
        """Move all streams over the layer's feed-forward branch and its norm; return both as re-solved."""
        changes = [_feed(dense.feed_forward, stream.dense) for stream in self._streams]
        repaired: FeedForward | None = None
        sums = [stream.current for stream in self._streams]
        if layer.feed_forward is not None:
            found = layer.feed_forward
            kept = kept_channels(dense, self._calibration, self._recipe.criterion, found.intermediate_size)
            assert dense.feed_forward is not None
            repaired = replace(found, up=self._reader(found.up, dense.feed_forward.up, kept))
            up = self._stored(repaired.up)
            middles = [activate(repaired, self._file.product(stream.current, up)) for stream in self._streams]
            repaired.down = self._writer(repaired.down, middles, changes)
            sums = self._written(repaired.down, middles)
        return repaired, self._after_branch(layer.feed_forward_norm, sums, dense.feed_forward_norm, changes, removed)

    def _reader(self, linear: Linear, dense: Linear, rows: Tensor) -> Linear:
        """Fit what reads the stream to the rows of the dense matrix that are left."""
        part = Linear(dense.matrix()[rows], None if dense.bias is None else dense.bias[rows])
        return self._refit(linear, ((stream.current, apply_linear(stream.dense, part)) for stream in self._streams))

    def _writer(self, linear: Linear, inputs: Sequence[Tensor], changes: Sequence[Tensor]) -> Linear:
        """Fit what writes to the stream to the dense change, and to what the stream lacks already."""
        rows = zip(self._streams, inputs, changes, strict=True)
        return self._refit(linear, ((values, change + s.dense - s.current) for s, values, change in rows))

    def _written(self, linear: Linear, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the compressed streams with what the layer adds to them."""
        stored = self._stored(linear)
        rows = zip(self._streams, inputs, strict=True)
        return [stream.current + self._file.product(values, stored) for stream, values in rows]

    def _stored(self, linear: Linear) -> Linear:
        return stored_linear(linear, self._recipe.quantization)

    def _refit(self, linear: Linear, rows: Iterable[tuple[Tensor, Tensor]]) -> Linear:
        if "matrices" not in self._parts:
            return linear
        fitted, held = Pairs.empty(linear.inputs, linear.outputs), Pairs.empty(linear.inputs, linear.outputs)
        rounding = self._file.rounding(linear.bits)
        for stream, (values, targets) in zip(self._streams, rows, strict=True):
            read, chosen = values if rounding is None else rounding(values), stream.attended
            (held if stream.held else fitted).add(read[chosen], targets[chosen], self._weights(stream))
        matrix = linear.matrix()
        bias = torch.zeros(linear.outputs) if linear.bias is None else linear.bias
        on_grid = self._recipe.quantization.rounding == "gptq" and linear.bits in (4, 8)
        bound = linear.left is not None or on_grid or bool((matrix == 0).any())
        fit = refit(matrix, bias, fitted, held, bias_only=bound)
        if bound:
            return replace(linear, bias=fit.bias.float())
        return Linear(fit.weight.float().contiguous(), fit.bias.float(), bits=linear.bits)

    def _after_branch(
        self,
        norm: Norm,
        sums: Sequence[Tensor],
        dense_norm: Norm,
        changes: Sequence[Tensor],
        removed: Sequence[Layer] = (),
    ) -> Norm:
        dense_sums = [stream.dense + change for stream, change in zip(self._streams, changes, strict=True)]
        return self._normalise(norm, sums, dense_norm, dense_sums, removed)

    def _normalise(
        self,
        norm: Norm,
        sums: Sequence[Tensor],
        dense_norm: Norm,
        dense_sums: Sequence[Tensor],
        removed: Sequence[Layer],
    ) -> Norm:
        """Move all streams over a norm, the dense ones also over removed layers behind it; return the refitted norm."""
        for stream, dense in zip(self._streams, dense_sums, strict=True):
            stream.dense = normalise(dense, dense_norm)
            for layer in removed:
                stream.dense = _through(layer, stream.dense, stream.mask)
        norm = self._refit_norm(norm, sums)
        for stream, values in zip(self._streams, sums, strict=True):
            stream.current = normalise(values, norm)
        return norm

    def _refit_norm(self, norm: Norm, sums: Sequence[Tensor]) -> Norm:
        """Fit scale and shift of every channel to the dense streams."""
        if "normalisations" not in self._parts:
            return norm
        plain = Norm(torch.ones_like(norm.weight), torch.zeros_like(norm.bias), norm.epsilon)
        fitted, held = ChannelSums.empty(len(norm.weight)), ChannelSums.empty(len(norm.weight))
        for stream, values in zip(self._streams, sums, strict=True):
            chosen = stream.attended
            residuals = (stream.dense - normalise(values, norm))[chosen]
            (held if stream.held else fitted).add(normalise(values[chosen], plain), residuals, self._weights(stream))
        fit = refit_channels(fitted, held)
        weight, bias = ((old + step).float() for old, step in ((norm.weight, fit.scale), (norm.bias, fit.shift)))
        return replace(norm, weight=weight, bias=bias)

    def _weights(self, stream: _Stream) -> Tensor:
        """Return the weights of the stream's attended tokens."""
        weights = torch.ones(stream.attended.shape)
        weights[:, 0] = self._first_weight
        return weights[stream.attended]


def _embedding_sum(network: EncoderNetwork, quantization: QuantizationRecipe | None) -> torch.nn.Module:
    """Return the module that computes what the norm of the embeddings reads; with its file's tables, if rounded."""
    if quantization is not None:
        network = replace(network, embeddings=stored_embeddings(network.embeddings, quantization))
    embed = to_module(network, share=True).embeddings
    embed.register_module("norm", torch.nn.Identity())
    return embed


def _feed(branch: FeedForward | None, state: Tensor) -> Tensor:
    return torch.zeros_like(state) if branch is None else feed_forward_output(branch, state)


def _through(layer: Layer, state: Tensor, mask: Tensor) -> Tensor:
    """Return the states behind a dense layer."""
    if layer.attention is not None:
        state = state + apply_linear(attention_context(layer.attention, state, mask), layer.attention.output)
    state = normalise(state, layer.attention_norm)
    return normalise(state + _feed(layer.feed_forward, state), layer.feed_forward_norm)
