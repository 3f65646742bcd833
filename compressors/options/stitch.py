"""A model put together from cached parts: what it costs to ask how good a combination of options is.

Nothing is solved and nothing is copied for a candidate: the forward pass reads the tensors of the branches that it is
given. Of the dense model, the states before one layer are kept, so that replacing a late branch runs late layers only;
of combinations, recent states, so that relatives share the layers up to the first one in which they differ.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import torch
from torch import Tensor

from compressors.calibration.cache import ByteCache
from compressors.export.simulation import FileArithmetic
from compressors.forward import LinearMap
from compressors.forward import apply_linear
from compressors.forward import attention_context
from compressors.forward import feed_forward_output
from compressors.forward import fold_value_bias
from compressors.forward import normalise
from compressors.network import Attention
from compressors.network import ClassificationHead
from compressors.network import EncoderNetwork
from compressors.network import FeedForward
from compressors.options.branches import Branch
from compressors.options.scoring import Batch
from compressors.options.scoring import ScoringSet
from compressors.options.scoring import divergences
from compressors.torch_module import to_module

PREFIX_BYTES = 256 * 2**20
"""Room for states of combinations."""


@dataclass(frozen=True)
class Parts:
    """Both branches of a layer; with neither, the layer is the identity."""

    attention: Attention | None
    feed_forward: FeedForward | None
    key: str = "dense"
    """Names the two; empty where they have no name."""


class StitchedModel:
    """Scores combinations of branches against the dense model.

    Args:
        network: The dense model.
        scoring: The text.
        follow: Keep the dense states before the first layer that the last combination changed, instead of those before
            the first layer of all, and no states of combinations: for branches that are replaced one by one, in the
            order of the layers. Going back costs a run of the layers before.
        arithmetic: How linear layers are computed; ``None``: in float32. Rounding what they read costs about as much
            again as the forward pass.
    """

    @torch.inference_mode()
    def __init__(
        self,
        network: EncoderNetwork,
        scoring: ScoringSet,
        *,
        follow: bool = False,
        arithmetic: FileArithmetic | None = None,
    ) -> None:
        self._network = network
        self._rounds = arithmetic is not None
        self._linear: LinearMap = apply_linear if arithmetic is None else arithmetic.product
        self._projection: LinearMap = apply_linear if arithmetic is None else arithmetic.operand
        self._scoring = scoring
        self._head = to_module(network, share=True).head
        self._masks = [batch["attention_mask"].bool()[:, None, None, :] for batch in scoring.batches]
        self._dense_parts = [Parts(layer.attention, layer.feed_forward) for layer in network.layers]
        self._follow = follow
        self._start, self._states = 0, self._embed()
        self._prefixes = ByteCache(0 if follow else PREFIX_BYTES)
        self._classifier = isinstance(network.head, ClassificationHead)
        self._dense = [self._run(number, self._dense_parts) for number in range(len(scoring.batches))]

    @torch.inference_mode()
    def divergence(self, branches: Mapping[tuple[int, str], Branch], *, parts: int | None = None) -> float:
        """Return the mean divergence from the dense model.

        Args:
            branches: Replacements by position of the layer and ``attention`` | ``feed_forward``.
            parts: Score on the first so many parts of the scoring set; ``None``: on all of it.
        """
        return float(self.per_example(branches, parts=parts).mean())

    @torch.inference_mode()
    def per_example(self, branches: Mapping[tuple[int, str], Branch], *, parts: int | None = None) -> Tensor:
        """Return the divergence of every example, float64 ``[examples]``, in the order of the batches."""
        chosen = self._chosen(parts)
        dense = torch.cat([self._dense[number] for number in chosen])
        return divergences(dense, self.outputs(branches, parts=parts), classifier=self._classifier)

    @torch.inference_mode()
    def outputs(self, branches: Mapping[tuple[int, str], Branch], *, parts: int | None = None) -> Tensor:
        """Return the outputs, float32 ``[examples, labels or hidden]``, in the order of the batches."""
        layers = self._replace(branches)
        changed = min((layer for layer, _ in branches), default=len(layers) - 1)
        if self._follow:
            self._move(changed)
        return torch.cat([self._run(number, layers) for number in self._chosen(parts)])

    def _move(self, start: int) -> None:
        """Make the dense states those before layer ``start``."""
        if start < self._start:
            self._start, self._states = 0, self._embed()
        for index in range(self._start, start):
            parts = self._dense_parts[index]
            if parts.attention or parts.feed_forward:
                for number, mask in enumerate(self._masks):
                    self._states[number] = self._layer(self._states[number], mask, index, parts, last=False)
        self._start = start

    def _chosen(self, parts: int | None) -> list[int]:
        return [number for number, part in enumerate(self._scoring.part) if parts is None or part < parts]

    def _replace(self, branches: Mapping[tuple[int, str], Branch]) -> list[Parts]:
        layers = list(self._dense_parts)
        for index in {index for index, _ in branches}:
            attention, feed_forward = branches.get((index, "attention")), branches.get((index, "feed_forward"))
            given = [branch for branch in (attention, feed_forward) if branch is not None]
            found = self._dense_parts[index]
            if attention is not None:
                assert not isinstance(attention.network, FeedForward)
                found = replace(found, attention=self._as_written(attention.network))
            if feed_forward is not None:
                assert not isinstance(feed_forward.network, Attention)
                found = replace(found, feed_forward=feed_forward.network)
            key = "/".join(branch.key for branch in given) if all(branch.key for branch in given) else ""
            layers[index] = replace(found, key=key)
        return layers

    def _as_written(self, attention: Attention | None) -> Attention | None:
        """Move the bias of the values to where files have it, behind the rounding of what the output reads."""
        return attention if attention is None or not self._rounds else fold_value_bias(attention)

    def _run(self, number: int, layers: Sequence[Parts]) -> Tensor:
        """Run one batch from the dense states to the output."""
        present = [index for index, parts in enumerate(layers) if parts.attention or parts.feed_forward]
        state = self._state(number, layers, present[-1]) if present else self._states[number]
        output: Tensor = self._head(state, self._scoring.batches[number]["attention_mask"])
        return output

    def _state(self, number: int, layers: Sequence[Parts], last: int) -> Tensor:
        """Return the state after layer ``last``, from as far along as a relative has been."""
        start = self._start

        def after(index: int) -> Tensor:
            if index < start:
                return self._states[number]
            parts = layers[index]
            if parts.attention is None and parts.feed_forward is None:
                return after(index - 1)

            def compute() -> Tensor:
                return self._layer(after(index - 1), self._masks[number], index, parts, last=index == last)

            names = [parts.key for parts in layers[start : index + 1]]
            if index == last or not all(names):
                return compute()
            return self._prefixes.get(f"{number}:{'|'.join(names)}", Tensor, compute)

        return after(last)

    def _layer(self, state: Tensor, mask: Tensor, index: int, parts: Parts, *, last: bool) -> Tensor:
        layer = self._network.layers[index]
        if parts.attention is not None:
            context = attention_context(parts.attention, state, mask, self._projection)
            if last and self._classifier:  # as in the file: nobody reads the other tokens, which would share their grid
                context, state = context[:, :1], state[:, :1]
            state = state + self._linear(context, parts.attention.output)
        elif last and self._classifier:
            state = state[:, :1]
        state = normalise(state, layer.attention_norm)
        if parts.feed_forward is not None:
            state = state + feed_forward_output(parts.feed_forward, state, self._linear)
        return normalise(state, layer.feed_forward_norm)

    def _embed(self) -> list[Tensor]:
        embeddings = to_module(self._network, share=True).embeddings
        return [embeddings(batch["input_ids"], _types(batch)) for batch in self._scoring.batches]


def _types(batch: Batch) -> Tensor | None:
    return batch.get("token_type_ids")
