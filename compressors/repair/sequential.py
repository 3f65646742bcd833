"""Sequential re-solve: every matrix against the dense model's outputs, on the inputs that it really gets.

A recipe is applied with the statistics of the dense model: each branch is solved as if all before it were intact. Here
the layers are walked in order, dense and compressed side by side. Each matrix of the compressed model is fitted, on
what the repaired layers before it hand over, to what the dense matrix computes. GPTQ (arXiv:2210.17323) and SparseGPT
(arXiv:2301.00774) walk in the same order with their own outputs as the target. What writes to the residual stream is
also asked to make up for the error that the stream already has. No labels, no gradients.
"""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor

from compressors.calibration.statistics import Calibration
from compressors.export.simulation import stored_linear
from compressors.forward import LinearMap
from compressors.forward import activate
from compressors.forward import apply_linear
from compressors.forward import apply_rounded
from compressors.forward import attention_context
from compressors.forward import normalise
from compressors.forward import round_activations
from compressors.methods.regression import Pairs
from compressors.methods.regression import refit
from compressors.methods.removal_order import expand_groups
from compressors.network import Attention
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.network import Layer
from compressors.network import Linear
from compressors.options.scoring import divergences
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.removal import kept_channels
from compressors.removal import kept_heads
from compressors.torch_module import to_module
from infra.errors import InvalidInputError

Batch = dict[str, Tensor]

HOLD_OUT = 4
"""One of so many batches is held out: it decides what is kept."""
FIRST_TOKEN_WEIGHT = 20.0
"""In the last layer of a classifier, whose head reads nothing but the first token."""


@dataclass(frozen=True)
class Repair:
    """What a repair gave.

    Attributes:
        network: The repaired model, or the candidate as it was where the repair did not help.
        before: Divergence of the candidate from the dense model on the held-out batches.
        after: The same of ``network``; never above ``before``.
    """

    network: EncoderNetwork
    before: float
    after: float


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


@torch.no_grad()
def repair_sequentially(
    network: EncoderNetwork,
    candidate: EncoderNetwork,
    calibration: Calibration,
    recipe: Recipe,
    batches: Iterable[Batch],
) -> Repair:
    """Re-solve every matrix of ``candidate`` that has no zeros, grid or factors to keep; refit the bias of the others.

    A matrix moves only as far as held-out batches confirm, and the whole is kept only if the model's outputs on them
    come closer to the dense ones. Layers with few bits are walked with the weights that are stored, and read what is
    rounded where the scheme rounds it. Deterministic.

    Args:
        network: the dense model.
        candidate: what :func:`compressors.apply.apply_recipe` made of it by ``recipe``. It is not changed.
        calibration: of the dense model; its orders say which heads and channels are left.
        recipe: the candidate's.
        batches: at least :data:`HOLD_OUT` batches of text without labels, ``input_ids`` and ``attention_mask``.

    Raises:
        InvalidInputError: too few batches to hold one out.
    """
    given = list(batches)
    if len(given) < HOLD_OUT:
        raise InvalidInputError(
            f"Repair needs at least {HOLD_OUT} batches of text, got {len(given)}.", hint="Use smaller batches."
        )
    held = [batch for number, batch in enumerate(given) if _is_held(number)]
    repaired = _Walk(network, candidate, calibration, recipe, given).run()
    dense = _outputs(network, held)
    classifier = isinstance(network.head, ClassificationHead)
    before, after = (
        float(divergences(dense, _outputs(_rounded(model, recipe.quantization), held), classifier=classifier).mean())
        for model in (candidate, repaired)
    )
    return Repair(repaired, before, after) if after < before else Repair(candidate, before, before)


class _Walk:
    """Pushes all batches through both models, layer by layer, and re-solves on the way."""

    def __init__(
        self,
        network: EncoderNetwork,
        candidate: EncoderNetwork,
        calibration: Calibration,
        recipe: Recipe,
        batches: Sequence[Batch],
    ) -> None:
        self._network, self._candidate = network, candidate
        self._calibration, self._recipe = calibration, recipe
        self._linear: LinearMap = apply_rounded if recipe.quantization.rounds_inputs(8) else apply_linear
        embed = to_module(network, share=True).embeddings
        self._streams: list[_Stream] = []
        for number, batch in enumerate(batches):
            state = embed(batch["input_ids"], batch.get("token_type_ids"))
            self._streams.append(_Stream(state, state, batch["attention_mask"].bool(), _is_held(number)))
        self._first_weight = 1.0

    def run(self) -> EncoderNetwork:
        """Return the candidate with re-solved layers."""
        smaller = {layer.index: layer for layer in self._candidate.layers}
        layers = []
        for dense in self._network.layers:
            if dense is self._network.layers[-1] and isinstance(self._network.head, ClassificationHead):
                self._first_weight = FIRST_TOKEN_WEIGHT
            layer = smaller.get(dense.index)
            attention = self._attention(dense, layer)
            feed_forward = self._feed_forward(dense, layer)
            if layer is not None:
                layers.append(replace(layer, attention=attention, feed_forward=feed_forward))
        return replace(self._candidate, layers=layers)

    def _attention(self, dense: Layer, layer: Layer | None) -> Attention | None:
        """Move all streams over the layer's attention and its norm; return the re-solved branch."""
        found = None if layer is None else layer.attention
        repaired: Attention | None = None
        if found is not None:
            heads = kept_heads(dense, self._calibration, self._recipe.criterion, found.heads)
            rows = expand_groups(heads, found.head_size)
            assert dense.attention is not None
            repaired = replace(
                found,
                query=self._reader(found.query, dense.attention.query, rows),
                key=self._reader(found.key, dense.attention.key, rows),
                value=self._reader(found.value, dense.attention.value, rows),
            )
            deployed = _rounded_attention(repaired, self._recipe.quantization)
        changes = [
            torch.zeros_like(stream.dense)
            if dense.attention is None
            else apply_linear(attention_context(dense.attention, stream.dense, stream.mask), dense.attention.output)
            for stream in self._streams
        ]
        contexts: list[Tensor] = []
        if repaired is not None:
            contexts = [attention_context(deployed, s.current, s.mask, self._linear) for s in self._streams]
            repaired.output = self._writer(repaired.output, contexts, changes)
        output = None if repaired is None else repaired.output
        self._advance(changes, contexts, output, dense, layer, "attention_norm")
        return repaired

    def _feed_forward(self, dense: Layer, layer: Layer | None) -> FeedForward | None:
        """Move all streams over the layer's feed-forward branch and its norm; return the re-solved branch."""
        found = None if layer is None else layer.feed_forward
        repaired: FeedForward | None = None
        if found is not None:
            kept = kept_channels(dense, self._calibration, self._recipe.criterion, found.intermediate_size)
            assert dense.feed_forward is not None
            repaired = replace(found, up=self._reader(found.up, dense.feed_forward.up, kept))
        changes = [_feed(dense.feed_forward, stream.dense) for stream in self._streams]
        middles: list[Tensor] = []
        if repaired is not None:
            up = stored_linear(repaired.up, self._recipe.quantization)
            middles = [activate(repaired, self._linear(stream.current, up)) for stream in self._streams]
            repaired.down = self._writer(repaired.down, middles, changes)
        down = None if repaired is None else repaired.down
        self._advance(changes, middles, down, dense, layer, "feed_forward_norm")
        return repaired

    def _reader(self, linear: Linear, dense: Linear, rows: Tensor) -> Linear:
        """Fit what reads the stream to the rows of the dense matrix that are left."""
        part = Linear(dense.matrix()[rows], None if dense.bias is None else dense.bias[rows])
        return self._refit(linear, ((stream.current, apply_linear(stream.dense, part)) for stream in self._streams))

    def _writer(self, linear: Linear, inputs: Sequence[Tensor], changes: Sequence[Tensor]) -> Linear:
        """Fit what writes to the stream to the dense change, and to what the stream lacks already."""
        rows = zip(self._streams, inputs, changes, strict=True)
        return self._refit(linear, ((values, change + s.dense - s.current) for s, values, change in rows))

    def _refit(self, linear: Linear, rows: Iterable[tuple[Tensor, Tensor]]) -> Linear:
        fitted, held = Pairs.empty(linear.inputs, linear.outputs), Pairs.empty(linear.inputs, linear.outputs)
        for stream, (values, targets) in zip(self._streams, rows, strict=True):
            read = round_activations(values) if self._recipe.quantization.rounds_inputs(linear.bits) else values
            weights = torch.ones(stream.attended.shape)
            weights[:, 0] = self._first_weight
            chosen = stream.attended
            (held if stream.held else fitted).add(read[chosen], targets[chosen], weights[chosen])
        matrix = linear.matrix()
        bias = torch.zeros(linear.outputs) if linear.bias is None else linear.bias
        on_grid = self._recipe.quantization.rounding == "gptq" and linear.bits in (4, 8)
        bound = linear.left is not None or on_grid or bool((matrix == 0).any())
        fit = refit(matrix, bias, fitted, held, bias_only=bound)
        if bound:
            return replace(linear, bias=fit.bias.float())
        return Linear(fit.weight.float().contiguous(), fit.bias.float(), bits=linear.bits)

    def _advance(
        self,
        changes: Sequence[Tensor],
        inputs: Sequence[Tensor],
        writer: Linear | None,
        dense: Layer,
        layer: Layer | None,
        norm: str,
    ) -> None:
        deployed = None if writer is None else stored_linear(writer, self._recipe.quantization)
        for number, stream in enumerate(self._streams):
            stream.dense = normalise(stream.dense + changes[number], getattr(dense, norm))
            if layer is None:
                continue
            change = 0.0 if deployed is None else self._linear(inputs[number], deployed)
            stream.current = normalise(stream.current + change, getattr(layer, norm))


def _is_held(number: int) -> bool:
    return number % HOLD_OUT == 1


def _feed(branch: FeedForward | None, state: Tensor) -> Tensor:
    if branch is None:
        return torch.zeros_like(state)
    return apply_linear(activate(branch, apply_linear(state, branch.up)), branch.down)


def _outputs(network: EncoderNetwork, batches: Sequence[Batch]) -> Tensor:
    module = to_module(network, share=True)
    return torch.cat([module(**batch) for batch in batches])


def _rounded(network: EncoderNetwork, quantization: QuantizationRecipe) -> EncoderNetwork:
    """Return the network with the weights of low-bit layers rounded as they are deployed."""
    layers = []
    for layer in network.layers:
        attention, branch = layer.attention, layer.feed_forward
        if attention is not None:
            attention = _rounded_attention(attention, quantization)
        if branch is not None:
            up, down = stored_linear(branch.up, quantization), stored_linear(branch.down, quantization)
            branch = replace(branch, up=up, down=down)
        layers.append(replace(layer, attention=attention, feed_forward=branch))
    return replace(network, layers=layers)


def _rounded_attention(branch: Attention, quantization: QuantizationRecipe) -> Attention:
    query, key, value, output = (
        stored_linear(linear, quantization) for linear in (branch.query, branch.key, branch.value, branch.output)
    )
    return replace(branch, query=query, key=key, value=value, output=output)
