"""Text on which candidates are compared with the dense model, and how far apart their outputs are."""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from infra.errors import InvalidInputError

Batch = dict[str, Tensor]
BATCH_TOKENS = 2048


@dataclass(frozen=True)
class ScoringSet:
    """Padded batches of texts of similar lengths, in which the first ``1/k`` of the examples are a fair sample.

    Attributes:
        batches: ``input_ids`` and ``attention_mask`` (optionally ``token_type_ids``), int64 ``[batch, sequence]``.
        part: Of each batch, the stage of its examples: 0 for the first part, 1 for the second and so on.
        order: For each example, in the order of the batches, its position in what was given.
    """

    batches: tuple[Batch, ...]
    part: tuple[int, ...]
    order: tuple[int, ...]

    @classmethod
    def collect(cls, examples: Iterable[Batch], parts: tuple[float, ...] = (1.0,)) -> "ScoringSet":
        """Group single examples into batches.

        Args:
            examples: One text each, tensors ``[1, tokens]``, without padding.
            parts: Shares of the examples, ascending, the last 1: a candidate is scored on the first share first.

        Raises:
            InvalidInputError: There are no examples.
        """
        given = list(examples)
        if not given:
            raise InvalidInputError("There is no text to score candidates on.", hint="Give at least a hundred texts.")
        ends = [max(1, round(share * len(given))) for share in parts]
        batches: list[Batch] = []
        part: list[int] = []
        order: list[int] = []
        for number, (start, stop) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            groups = _groups(given, range(start, stop))
            batches += [_stack([given[index] for index in group]) for group in groups]
            part += [number] * len(groups)
            order += [index for group in groups for index in group]
        return cls(tuple(batches), tuple(part), tuple(order))

    @property
    def examples(self) -> int:
        """Number of texts."""
        return sum(len(batch["input_ids"]) for batch in self.batches)


def divergences(dense: Tensor, candidate: Tensor, *, classifier: bool) -> Tensor:
    """Return how far each output is from the dense one, float64 ``[examples]``.

    Args:
        dense: Outputs of the dense model, ``[examples, labels or hidden]``.
        candidate: Outputs of the candidate, the same shape.
        classifier: Outputs are logits: KL(dense || candidate) in nats. Otherwise embeddings: 1 - cosine.
    """
    dense, candidate = dense.double(), candidate.double()
    if not classifier:
        return (1 - functional.cosine_similarity(dense, candidate, dim=-1)).clamp_min(0)
    p, q = dense.log_softmax(-1), candidate.log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).clamp_min(0)


def _groups(examples: Sequence[Batch], positions: Iterable[int]) -> list[list[int]]:
    """Sort by length and join as many as fit into :data:`BATCH_TOKENS`."""
    groups: list[list[int]] = []
    for position in sorted(positions, key=lambda index: examples[index]["input_ids"].shape[1]):
        length = examples[position]["input_ids"].shape[1]
        if groups and (len(groups[-1]) + 1) * length <= BATCH_TOKENS:
            groups[-1].append(position)
        else:
            groups.append([position])
    return groups


def _stack(examples: list[Batch]) -> Batch:
    length = examples[-1]["input_ids"].shape[1]
    return {
        name: torch.cat([functional.pad(example[name], (0, length - example[name].shape[1])) for example in examples])
        for name in examples[0]
    }
