"""From the given texts to what is trained on and what is held back."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from compressors.recovery.config import Augmentation
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import TrainingData
from compressors.recovery.data import split

FEWEST_HELD = 64
"""Texts that a checkpoint is chosen by, at least, where others can be held back beside those that are given for it."""


@dataclass(frozen=True)
class PreparedData:
    """Texts, cut to length and augmented, with the part that is held back."""

    examples: TrainingData
    """The given texts in their order, those that were given to choose by, then the variants of those that are trained
    on."""
    train: list[int]
    """Rows of ``examples`` to train on."""
    held: list[int]
    """Rows to choose the checkpoint by; no variant was made of them."""


def prepare(data: TrainingData, config: RecoveryConfig, held: TrainingData | None = None) -> PreparedData:
    """Cut, divide and augment. The result depends on the arguments only.

    Args:
        data: Texts to train on.
        config: How they are cut and augmented, and how many are held back.
        held: Texts to choose the checkpoint by; their labels are not used. All of ``data`` is trained on then, but what
            equals one of them, and with fewer than :data:`FEWEST_HELD` some of ``data`` are held back besides.
            ``None``: a part of ``data`` is held back.

    Raises:
        InvalidDatasetError: there are too few texts.
    """
    data = data.truncated(config.max_length)
    if held is None:
        train, kept = split(len(data), config.held_back, config.held_back_limit, config.seed)
        return _augmented(data, train, kept, config)
    held = held.truncated(config.max_length)
    known = {tuple(row) for row in held.input_ids}
    unseen = [row for row, tokens in enumerate(data.input_ids) if tuple(tokens) not in known]
    missing = min(config.held_back_limit, max(0, FEWEST_HELD - len(held)))
    train, besides = split(len(unseen), config.held_back, missing, config.seed)
    joined = data.joined(held)
    kept = [*(unseen[place] for place in besides), *range(len(data), len(joined))]
    return _augmented(joined, [unseen[place] for place in train], kept, config)


def _augmented(data: TrainingData, train: list[int], held: list[int], config: RecoveryConfig) -> PreparedData:
    """Add the variants of the rows that are trained on, but those that equal a text that is not."""
    ids, types = variants(data, train, config.augmentation, config.seed)
    known = {tuple(data.input_ids[row]) for row in held}
    fresh = [place for place, tokens in enumerate(ids) if tuple(tokens) not in known]
    if not fresh:
        return PreparedData(data, train, held)
    added = TrainingData(ids, None, types if data.token_type_ids is not None else None).subset(fresh)
    examples = data.joined(added)
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
