"""Metrics of a candidate against labels and against the dense model. Arrays in, arrays out; nothing is sampled."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MAX_RELATIONAL = 1000
"""Embeddings that enter the relational metrics; the cost grows with the square."""
_NEIGHBOURS = 10


def log_softmax(logits: Floats) -> Floats:
    """Return log-probabilities, shape ``[examples, classes]``."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def kl_divergence(dense: Floats, candidate: Floats) -> Floats:
    """Return KL(dense || candidate) of the class probabilities in nats, shape ``[examples]``.

    Args:
        dense: Logits of the dense model, ``[examples, classes]``.
        candidate: Logits of the candidate, the same shape.
    """
    p, q = log_softmax(dense), log_softmax(candidate)
    divergence: Floats = np.maximum((np.exp(p) * (p - q)).sum(axis=1), 0.0)
    return divergence


def agreement(dense: Floats, candidate: Floats) -> Floats:
    """Return 1 where both predict the same class, else 0, shape ``[examples]``."""
    same: Floats = (dense.argmax(axis=1) == candidate.argmax(axis=1)).astype(np.float64)
    return same


def correct(logits: Floats, labels: NDArray[np.int64]) -> Floats:
    """Return 1 where the prediction is the label, else 0, shape ``[examples]``."""
    scores: Floats = (logits.argmax(axis=1) == labels).astype(np.float64)
    return scores


def unit_rows(vectors: Floats) -> Floats:
    """Scale rows to length one; zero rows stay zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    result: Floats = vectors / np.maximum(norms, np.finfo(np.float64).tiny)
    return result


def cosine(dense: Floats, candidate: Floats) -> Floats:
    """Return the cosine of corresponding rows, shape ``[examples]``."""
    result: Floats = np.clip((unit_rows(dense) * unit_rows(candidate)).sum(axis=1), -1.0, 1.0)
    return result


def neighbour_overlap(dense: Floats, candidate: Floats, neighbours: int = _NEIGHBOURS) -> Floats:
    """Return the share of common nearest neighbours by cosine, self excluded, shape ``[examples]``.

    A rotation of the whole space lowers the cosine to the dense vectors but not this; a small uneven drift does the
    opposite.
    """
    count = min(neighbours, len(dense) - 1)
    nearest = []
    for vectors in (dense, candidate):
        similarity = unit_rows(vectors) @ unit_rows(vectors).T
        np.fill_diagonal(similarity, -np.inf)
        nearest.append(np.argpartition(-similarity, count - 1, axis=1)[:, :count])
    common = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(axis=2)
    result: Floats = common.mean(axis=1)
    return result


def ranks(values: Floats) -> Floats:
    """Return ranks from 0; ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    result: Floats = (last - (counts + 1) / 2)[inverse]
    return result


def similarity_correlation(dense: Floats, candidate: Floats) -> float:
    """Return Spearman's correlation of all pairwise cosines; 1.0 where there is no variation to compare."""
    upper = np.triu_indices(len(dense), k=1)
    columns = [ranks((unit_rows(vectors) @ unit_rows(vectors).T)[upper]) for vectors in (dense, candidate)]
    deviations = [column - column.mean() for column in columns]
    scale = float(np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float((deviations[0] * deviations[1]).sum() / scale) if scale > 0 else 1.0


def relational_subset(examples: int) -> NDArray[np.int64]:
    """Return the evenly spaced examples that the relational metrics use."""
    count = min(examples, _MAX_RELATIONAL)
    return np.linspace(0, examples - 1, count).round().astype(np.int64)
