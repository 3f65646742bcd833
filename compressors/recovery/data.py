"""Encoded texts and the batches that are made of them."""

import hashlib
import math
import random
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from infra.errors import InvalidDatasetError

UNLABELLED = -100
"""Label of an example that has none: torch's cross-entropy leaves it out."""

_BUCKET = 32
"""Batches that are drawn and sorted by length together: little padding, and still a random order."""

WIDTH_STEP = 4
"""Batches that are trained on are as wide as a multiple of this. Kernels of bf16 products are compiled for each number
of tokens, which takes about ten times as long as such a product."""


@dataclass(frozen=True)
class TrainingData:
    """Texts as a tokenizer encodes them, special tokens included.

    Attributes:
        input_ids: one list of token ids for each text, not padded, none of them empty.
        labels: class index of each text, ``UNLABELLED`` where there is none; ``None``: no labels at all.
        token_type_ids: like ``input_ids``; ``None``: all zero.
    """

    input_ids: Sequence[Sequence[int]]
    labels: Sequence[int] | None = None
    token_type_ids: Sequence[Sequence[int]] | None = None

    def __post_init__(self) -> None:
        for name, column in (("labels", self.labels), ("token_type_ids", self.token_type_ids)):
            if column is not None and len(column) != len(self.input_ids):
                raise InvalidDatasetError(
                    f"There are {len(self.input_ids)} texts but {len(column)} entries in {name}.",
                    hint="Give one entry for each text.",
                )
        if not all(len(row) for row in self.input_ids):
            raise InvalidDatasetError("A text has no tokens.", hint="Encode texts with their special tokens.")

    def __len__(self) -> int:
        """Number of texts."""
        return len(self.input_ids)

    @property
    def tokens(self) -> int:
        """Number of tokens of all texts."""
        return sum(len(row) for row in self.input_ids)

    def joined(self, other: "TrainingData") -> "TrainingData":
        """Return these texts and then those of ``other``; what one of the two does not say takes its default."""
        labels, types = None, None
        if self.labels is not None or other.labels is not None:
            labels = [label for part in (self, other) for label in part.labels or [UNLABELLED] * len(part)]
        if self.token_type_ids is not None or other.token_type_ids is not None:
            types = [
                row for part in (self, other) for row in part.token_type_ids or [[0] * len(r) for r in part.input_ids]
            ]
        return TrainingData([*self.input_ids, *other.input_ids], labels, types)

    def subset(self, indices: Sequence[int]) -> "TrainingData":
        """Return the texts at ``indices``, in that order."""
        return TrainingData(
            [self.input_ids[index] for index in indices],
            None if self.labels is None else [self.labels[index] for index in indices],
            None if self.token_type_ids is None else [self.token_type_ids[index] for index in indices],
        )

    def truncated(self, max_length: int | None) -> "TrainingData":
        """Cut longer texts to ``max_length`` tokens; their last token (the separator) is kept."""

        def cut(tokens: Sequence[int]) -> Sequence[int]:
            long = max_length is not None and len(tokens) > max_length
            return [*tokens[: max_length - 1], tokens[-1]] if long and max_length is not None else tokens

        types = None if self.token_type_ids is None else [cut(row) for row in self.token_type_ids]
        return TrainingData([cut(row) for row in self.input_ids], self.labels, types)

    @property
    def digest(self) -> str:
        """sha256 (hexadecimal) of the content."""
        digest = hashlib.sha256()
        for column in (self.input_ids, self.token_type_ids):
            rows = () if column is None else column
            digest.update(repr([[int(token) for token in row] for row in rows]).encode())
        digest.update(repr([int(label) for label in self.labels or ()]).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Batch:
    """A padded batch: every tensor is int64, ``[batch, sequence]`` unless stated."""

    indices: Tensor
    """Position of each row in the data, ``[batch]``."""
    input_ids: Tensor
    attention_mask: Tensor
    token_type_ids: Tensor | None
    labels: Tensor | None
    """``[batch]``."""


def collate(data: TrainingData, indices: Sequence[int], width: int | None = None) -> Batch:
    """Pad the texts at ``indices`` to ``width`` tokens, or to the longest of them."""
    rows = [data.input_ids[index] for index in indices]
    width = max(len(row) for row in rows) if width is None else width
    lengths = torch.tensor([len(row) for row in rows])
    types = None if data.token_type_ids is None else [data.token_type_ids[index] for index in indices]
    return Batch(
        indices=torch.tensor(list(indices)),
        input_ids=_pad(rows, width),
        attention_mask=(torch.arange(width)[None, :] < lengths[:, None]).long(),
        token_type_ids=None if types is None else _pad(types, width),
        labels=None if data.labels is None else torch.tensor([data.labels[index] for index in indices]),
    )


def _pad(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    return torch.tensor([[*row, *([0] * (width - len(row)))] for row in rows])


def split(count: int, fraction: float, limit: int, seed: int) -> tuple[list[int], list[int]]:
    """Divide ``range(count)`` into a training and a held-back part, both sorted.

    Raises:
        InvalidDatasetError: there are too few texts for both.
    """
    held = min(limit, max(round(count * fraction), 1))
    if count < 4 or held >= count:
        raise InvalidDatasetError(
            f"{count} texts are too few to train on.", hint="Give at least a few dozen training texts."
        )
    order = list(range(count))
    random.Random(f"held-back {seed}").shuffle(order)  # noqa: S311
    return sorted(order[held:]), sorted(order[:held])


def epoch_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Cut one epoch into batches of texts of similar length.

    The texts are shuffled, sorted by length within stretches of several batches, cut, and the batches shuffled. The
    result depends on the arguments only, so that a resumed run sees the same order.
    """
    generator = random.Random(f"epoch {seed} {epoch}")  # noqa: S311
    order = list(range(len(lengths)))
    generator.shuffle(order)
    stretch = batch_size * _BUCKET
    for start in range(0, len(order), stretch):
        order[start : start + stretch] = sorted(order[start : start + stretch], key=lambda index: lengths[index])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    generator.shuffle(batches)
    return batches


def padded_width(longest: int, positions: int) -> int:
    """Return the tokens that a batch to train on is padded to: a multiple of :data:`WIDTH_STEP`, where it fits.

    Args:
        longest: Tokens of its longest text.
        positions: Tokens that the model can read.
    """
    return max(longest, min(WIDTH_STEP * math.ceil(longest / WIDTH_STEP), positions))


def even_parts(rows: list[int], width: int, tokens: int) -> Iterator[list[int]]:
    """Divide a batch into as few parts as keep to ``tokens`` each, about equally large.

    Args:
        rows: Texts of the batch.
        width: Tokens that each is padded to.
        tokens: That a part has at most, where one text has no more.
    """
    size = max(1, tokens // width)
    size = math.ceil(len(rows) / math.ceil(len(rows) / size))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def model_inputs(batch: Batch) -> dict[str, Tensor]:
    """Return what the dense model takes of a batch, by the names of its inputs."""
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    return inputs if batch.token_type_ids is None else inputs | {"token_type_ids": batch.token_type_ids}


def sequential_batches(data: TrainingData, batch_size: int) -> Iterator[Batch]:
    """Yield every text once, by length: for evaluation and for the dense model's outputs."""
    order = sorted(range(len(data)), key=lambda index: len(data.input_ids[index]))
    for start in range(0, len(order), batch_size):
        yield collate(data, order[start : start + batch_size])
