"""Quality and closeness to the dense model, example by example, so that everything can be paired.

Outputs are float arrays ``[examples, classes]`` (logits) or ``[examples, hidden]`` (embeddings).
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Outputs = NDArray[np.floating]

NEIGHBOURS = 10


def accuracy(logits: Outputs, labels: NDArray[np.int64]) -> Floats:
    """Return 1 where the largest logit is the label's, else 0: ``[examples]``."""
    return (logits.argmax(axis=1) == labels).astype(np.float64)


def agreement(logits: Outputs, dense: Outputs) -> Floats:
    """Return 1 where both models predict the same class, else 0: ``[examples]``."""
    return (logits.argmax(axis=1) == dense.argmax(axis=1)).astype(np.float64)


def kl_divergence(logits: Outputs, dense: Outputs) -> Floats:
    """Return KL(dense || candidate) of the class probabilities, in nats: ``[examples]``."""
    reference, candidate = _log_softmax(dense), _log_softmax(logits)
    return np.maximum((np.exp(reference) * (reference - candidate)).sum(axis=1), 0.0)


def cosine(embeddings: Outputs, dense: Outputs) -> Floats:
    """Return the cosine of each embedding with the dense model's: ``[examples]``."""
    return (_unit(embeddings) * _unit(dense)).sum(axis=1)


def neighbour_overlap(embeddings: Outputs, dense: Outputs, neighbours: int = NEIGHBOURS) -> Floats:
    """Return the share of each example's nearest neighbours (cosine) that both models agree on: ``[examples]``."""
    count = min(neighbours, len(dense) - 1)
    ours, theirs = _nearest(embeddings, count), _nearest(dense, count)
    return np.array([len(set(a) & set(b)) / count for a, b in zip(ours, theirs, strict=True)], dtype=np.float64)


def similarity_rank_correlation(embeddings: Outputs, dense: Outputs, limit: int = 1000) -> float:
    """Return Spearman's correlation of all pairwise similarities of the first ``limit`` examples."""
    left, right = _unit(embeddings[:limit]), _unit(dense[:limit])
    upper = np.triu_indices(len(left), k=1)
    ranks = [_ranks((side @ side.T)[upper]) for side in (left, right)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _log_softmax(logits: Outputs) -> Floats:
    shifted = np.asarray(logits, dtype=np.float64)
    shifted = shifted - shifted.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def _unit(vectors: Outputs) -> Floats:
    values = np.asarray(vectors, dtype=np.float64)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def _nearest(vectors: Outputs, count: int) -> NDArray[np.intp]:
    unit = _unit(vectors)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :count]


def _ranks(values: Floats) -> Floats:
    ranks = np.empty(len(values), dtype=np.float64)
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values), dtype=np.float64)
    return ranks
