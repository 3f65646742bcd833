"""Texts for recovery training: read, kept apart from the evaluation data, encoded, and cut to what a budget can use."""

import random
from collections.abc import Sequence

import numpy as np

from compressors.description import Anatomy
from compressors.recovery.config import Augmentation
from compressors.recovery.config import LossWeights
from compressors.recovery.config import RecoveryConfig
from compressors.recovery.data import UNLABELLED
from compressors.recovery.data import TrainingData
from compressors.recovery.prepare import FEWEST_HELD
from profilers.quality.encode import EncodedTexts
from profilers.quality.encode import TextEncoder
from profilers.quality.examples import Examples
from profilers.quality.splits import split
from profilers.quality.splits import without_overlap
from workers.operations.data import read_file
from workers.operations.inputs import JobInputs

TEACHER_SHARE = 0.15
"""Part of the budget that the dense model's outputs on the training texts may cost."""
OPERATIONS_PER_SECOND = 1e11
"""Floating-point operations that the dense model is assumed to do in a second. A constant, not a measurement: the same
job must choose the same texts on every host, or a recovery could not go on elsewhere."""
FEW_TEXTS = 20_000
"""Fewer texts than this are made more by augmentation, as far as time and room for the dense model's outputs go."""
MOST_COPIES = 8
STATE_BYTES = 2
"""Bytes of one number of a token state."""
MOST_STATE_BYTES = 3 * 2**30
"""Room on disk that the dense model's token states may take, unless the request asks for them."""

EMBEDDING_LEARNING_RATE = 5e-5
SHORT_SECONDS = 300.0
"""Training time below which there are too few steps to make up for what large ones disturb."""


def training_examples(inputs: JobInputs, anatomy: Anatomy, *, use_labels: bool) -> Examples:
    """Read the training texts: the given ones, else those for calibration, else the part set aside for it.

    None of them is in the data that the search or the verdict looks at. Without ``use_labels`` a label column is not
    even read; with it, rows of the given texts may have none.

    Raises:
        InvalidDatasetError: A column is missing, or a label is unknown.
    """
    classes = anatomy.labels if use_labels and inputs.task == "sequence-classification" else ()
    evaluation = read_file(inputs, inputs.dataset, classes)
    file = inputs.train or inputs.calibration
    if file is None:
        return evaluation.select(split(evaluation, separate_calibration=False, seed=inputs.seed).calibration)
    given = read_file(inputs, file, classes, label_required=False, unlabelled=UNLABELLED)
    return given.select(without_overlap(given, evaluation))


def held_texts(search: EncodedTexts, anatomy: Anatomy, seconds: float, seed: int) -> TrainingData:
    """Return the texts that choose the checkpoint, without labels: of the search split, where models are compared.

    As many as are quickly evaluated time and again: a tenth of what a recovery of so many seconds can train on, and no
    more than :class:`RecoveryConfig` holds back. They are the same in every recovery of a job.

    Args:
        search: The search split.
        anatomy: Shape of the dense model.
        seconds: Time for all recoveries of the job.
        seed: Of the job.
    """
    config = RecoveryConfig()
    lengths = [len(ids) for ids in search.input_ids]
    tokens = int(config.held_back * affordable_tokens(anatomy, seconds))
    chosen = _draw(lengths, tokens, seed, least=FEWEST_HELD)[: config.held_back_limit]
    return _data(search.select(np.array(sorted(chosen), dtype=np.int64)), anatomy)


def training_data(
    inputs: JobInputs, anatomy: Anatomy, seconds: float, *, use_labels: bool, held_tokens: int = 0
) -> tuple[TrainingData, Augmentation]:
    """Return as many training texts as a recovery of so many seconds can use, and how to make more of them.

    Args:
        inputs: The job.
        anatomy: Shape of the dense model.
        seconds: Time for all recoveries of the job.
        use_labels: Whether to learn from labels, where there are some.
        held_tokens: Of the texts that are held back: the dense model's states of these take room, too.
    """
    examples = training_examples(inputs, anatomy, use_labels=use_labels)
    encoded = TextEncoder(inputs.model, inputs.workload.sequence_length).encode(examples)
    data = _data(encoded, anatomy, None if examples.labels is None else examples.labels.tolist())
    tokens = affordable_tokens(anatomy, seconds)
    lengths = [len(row) for row in data.input_ids]
    chosen = data.subset(sorted(_draw(lengths, tokens, inputs.seed)))
    copies = affordable_copies(anatomy, [len(row) for row in chosen.input_ids], tokens, held_tokens)
    return chosen, Augmentation(copies=copies)


def _data(encoded: EncodedTexts, anatomy: Anatomy, labels: list[int] | None = None) -> TrainingData:
    types = [types.tolist() for types in encoded.token_type_ids] if anatomy.has_token_types else None
    return TrainingData([ids.tolist() for ids in encoded.input_ids], labels, types)


def affordable_copies(anatomy: Anatomy, lengths: Sequence[int], tokens: int, held_tokens: int = 0) -> int:
    """Return how many variants are made of each text: as many as there are ``tokens`` and room for, where it has few.

    Args:
        anatomy: Shape of the dense model.
        lengths: Tokens of each text.
        tokens: That the dense model has the time to read.
        held_tokens: Of texts that take some of the room.
    """
    most = min(tokens, MOST_STATE_BYTES // state_bytes(anatomy) - held_tokens)
    copies = min(MOST_COPIES, most // max(1, sum(lengths)) - 1)
    return max(0, copies) if len(lengths) < FEW_TEXTS else 0


def default_losses(
    anatomy: Anatomy, texts: TrainingData, augmentation: Augmentation, held_tokens: int = 0
) -> LossWeights:
    """Return the default weights, without the term of the token states where keeping these takes too much room."""
    tokens = texts.tokens * (1 + augmentation.copies) + held_tokens
    return LossWeights() if tokens * state_bytes(anatomy) <= MOST_STATE_BYTES else LossWeights(hidden=0)


def state_bytes(anatomy: Anatomy) -> int:
    """Return the room that the dense model's states of one token take."""
    return anatomy.layers * anatomy.hidden_size * STATE_BYTES


def default_learning_rate(anatomy: Anatomy, seconds: float, *, continued: bool = False) -> float:
    """Return the default peak of the learning rate.

    An embedding has to come out the same in every direction, a class only on the right side: what large steps disturb
    at the beginning, a short training of an embedding model does not make up for. Neither does a short one of a
    classifier with the whole rate, or one that goes on from trained weights: these get half of it.

    Args:
        anatomy: The dense model.
        seconds: Training time.
        continued: Whether the training begins with trained weights.
    """
    if anatomy.task == "embedding":
        return EMBEDDING_LEARNING_RATE
    gentle = continued or seconds < SHORT_SECONDS
    return RecoveryConfig().learning_rate * (0.5 if gentle else 1.0)


def affordable_tokens(anatomy: Anatomy, seconds: float) -> int:
    """Return how many tokens the dense model reads in its share of ``seconds``."""
    weights = max(1, anatomy.parameters - anatomy.vocabulary_size * anatomy.hidden_size)
    return int(seconds * TEACHER_SHARE * OPERATIONS_PER_SECOND / (2 * weights))


def _draw(lengths: Sequence[int], tokens: int, seed: int, least: int = 64) -> list[int]:
    """Draw texts at random until they have so many tokens, at least ``least`` texts; their positions as drawn."""
    order = list(range(len(lengths)))
    random.Random(f"training {seed}").shuffle(order)  # noqa: S311
    drawn: list[int] = []
    total = 0
    for index in order:
        if total >= tokens and len(drawn) >= least:
            break
        drawn.append(index)
        total += lengths[index]
    return drawn
