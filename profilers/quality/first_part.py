"""The first part of a split: few examples, the same for every candidate, on which hopeless ones show themselves."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from profilers.protocol import Handle
from profilers.quality.encode import EncodedTexts
from profilers.quality.evaluate import Task
from profilers.quality.evaluate import compare
from profilers.quality.evaluate import run_all
from profilers.quality.metrics import log_softmax
from profilers.quality.metrics import unit_rows
from profilers.types import FirstLook
from profilers.types import Workload

SHARE = 1 / 8
LEAST = 48
MOST = 256
"""Part of the split that is evaluated first, in examples at least and at most. A model that is hopeless changes so many
predictions that more examples would say nothing new."""


@dataclass(frozen=True)
class FirstReference:
    """What every model is held against on the first part of a split.

    Attributes:
        positions: Of the examples in the split, ascending, int64.
        dense_outputs: Of the dense model, ``[positions, width]``.
        of: Examples of the whole split.
        constant_divergence: How far the nearest constant answer is from the dense model (:func:`best_constant`).
        constant_change: Share of the predictions that are another one with it, or 1 - mean cosine.
    """

    positions: NDArray[np.int64]
    dense_outputs: NDArray[np.floating]
    of: int
    constant_divergence: float
    constant_change: float


@dataclass(frozen=True)
class FirstPart:
    """A model's outputs on the first part.

    Attributes:
        positions: Of the examples in the split, ascending, int64.
        outputs: float32 ``[positions, width]``.
        look: What they say.
    """

    positions: NDArray[np.int64]
    outputs: NDArray[np.float32]
    look: FirstLook


def first_positions(examples: int) -> NDArray[np.int64]:
    """Return the positions of the first part in a split of so many examples, ascending and evenly spread.

    None of a split that has fewer than twice the least number: looking at half of it first would hardly save anything.
    """
    if examples < 2 * LEAST:
        return np.empty(0, dtype=np.int64)
    count = min(MOST, max(LEAST, round(SHARE * examples)))
    return (np.arange(count, dtype=np.int64) * examples) // count


def first_reference(dense_outputs: NDArray[np.floating], task: Task) -> FirstReference | None:
    """Return what models are held against on the first part; ``None`` where the split has none.

    Args:
        dense_outputs: Output of the dense model for the split, ``[examples, width]``.
        task: What it means.
    """
    positions = first_positions(len(dense_outputs))
    if len(positions) == 0:
        return None
    chosen = dense_outputs[positions]
    constant = np.broadcast_to(best_constant(chosen.astype(np.float64), task), chosen.shape)
    still, _ = compare(constant, chosen, None, task, split="search", padded=False)
    return FirstReference(positions, chosen, len(dense_outputs), still.divergence, still.drop.value)


def run_first(
    handle: Handle, encoded: EncodedTexts, reference: FirstReference, task: Task, workload: Workload, seed: int
) -> FirstPart:
    """Run a model on the first part of a split, each text at its own length, and compare outputs: no label is read.

    Args:
        handle: A loaded artifact that accepts any shape.
        encoded: The split's texts.
        reference: What it is held against.
        task: What the output means.
        workload: Texts are cut to its length.
        seed: Of the bootstrap.

    Raises:
        InvalidModelError: As of :func:`profilers.quality.evaluate.evaluate`.
    """
    outputs = run_all(handle, encoded.select(reference.positions), task, workload, padded=False)
    found, _ = compare(outputs, reference.dense_outputs, None, task, split="search", padded=False, seed=seed)
    look = FirstLook(
        examples=len(outputs),
        of=reference.of,
        divergence=found.divergence,
        change=found.drop,
        constant_divergence=reference.constant_divergence,
        constant_change=reference.constant_change,
    )
    return FirstPart(reference.positions, outputs, look)


def run_rest(
    handle: Handle, encoded: EncodedTexts, task: Task, workload: Workload, first: FirstPart | None
) -> NDArray[np.float32]:
    """Run a model on what the first part has left, and return its outputs for the whole split, in the split's order.

    They are those of :func:`profilers.quality.evaluate.run_all` without padding.
    """
    if first is None:
        return run_all(handle, encoded, task, workload, padded=False)
    rest = np.setdiff1d(np.arange(len(encoded)), first.positions)
    later = run_all(handle, encoded.select(rest), task, workload, padded=False)
    outputs = np.empty((len(encoded), later.shape[1]), dtype=np.float32)
    outputs[first.positions], outputs[rest] = first.outputs, later
    return outputs


def best_constant(dense_outputs: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """Return the answer, the same for every example, that comes nearest to the dense model's, ``[width]``.

    For classes the logarithm of their mean probability: no constant has a smaller mean KL divergence. For embeddings
    the mean of the unit vectors: no constant has a larger mean cosine.
    """
    if task == "embedding":
        mean: NDArray[np.float64] = unit_rows(dense_outputs).mean(axis=0)
        return mean
    probabilities = np.exp(log_softmax(dense_outputs)).mean(axis=0)
    logits: NDArray[np.float64] = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return logits
