"""From the given texts to what is trained on and what is held back."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import TrainingData
from compressors.recovery.data import split


@dataclass(frozen=True)
class PreparedData:
    """Texts, cut to length and augmented, with the part that is held back."""

    examples: TrainingData
    """The given texts in their order, then the variants of those that are trained on."""
    train: list[int]
    """Rows of ``examples`` to train on."""
    held: list[int]
    """Rows to choose the checkpoint by; no variant was made of them."""


def prepare(data: TrainingData, config: RecoveryConfig) -> PreparedData:
    """Cut, divide and augment. The result depends on ``data`` and ``config`` only.

    Raises:
        InvalidDatasetError: there are too few texts.
    """
    data = data.truncated(config.max_length)
    train, held = split(len(data), config.held_back, config.held_back_limit, config.seed)
    ids, types = variants(data, train, config.augmentation, config.seed)
    if not ids:
        return PreparedData(data, train, held)
    labels = None if data.labels is None else [*data.labels, *[UNLABELLED] * len(ids)]
    token_types = None if data.token_type_ids is None else [*data.token_type_ids, *types]
    examples = TrainingData([*data.input_ids, *ids], labels, token_types)
    return PreparedData(examples, [*train, *range(len(data), len(examples))], held)


def variants(
    data: TrainingData, rows: Sequence[int], config: Augmentation, seed: int
) -> tuple[list[list[int]], list[list[int]]]:
    """Make ``config.copies`` variants of each row: contiguous parts, with some tokens replaced.

    The first and the last token (the special ones) stay. Works on token ids, so on any language. The dense model
    labels the variants, so they need not mean the same as the original: they only have to be near the texts that
    the model will see.

    Returns:
        Token ids and token types of the variants.
    """
    generator = random.Random(f"variants {seed}")  # noqa: S311
    pool = [token for row in rows for token in data.input_ids[row][1:-1]]
    ids: list[list[int]] = []
    types: list[list[int]] = []
    for _ in range(config.copies):
        for row in rows:
            tokens = data.input_ids[row]
            start, stop = _span(len(tokens) - 2, config, generator)
            body = [
                generator.choice(pool) if generator.random() < config.replace_probability else token
                for token in tokens[1 + start : 1 + stop]
            ]
            ids.append([tokens[0], *body, tokens[-1]] if len(tokens) > 1 else list(tokens))
            if data.token_type_ids is not None:
                kinds = data.token_type_ids[row]
                types.append([kinds[0], *kinds[1 + start : 1 + stop], kinds[-1]] if len(kinds) > 1 else list(kinds))
    return ids, types


def _span(length: int, config: Augmentation, generator: random.Random) -> tuple[int, int]:
    """Draw a part of ``range(length)``."""
    if length < 1:
        return 0, 0
    if generator.random() >= config.span_probability:
        return 0, length
    shortest = max(1, round(length * config.shortest_span))
    size = generator.randint(shortest, length)
    start = generator.randint(0, length - size)
    return start, start + size
