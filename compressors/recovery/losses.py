"""The terms of the recovery loss. Every function returns a scalar, float32, averaged over the batch if not stated."""

import torch
from torch import Tensor
from torch.nn import functional

from compressors.recovery.data import UNLABELLED

LEAST_SPREAD = 1e-3
"""Least variance of similarities: texts that are all alike must not make one of their differences count for much."""


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy summed over the labelled rows, zero without any. logits ``[B, C]``, labels int64 ``[B]``."""
    return functional.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")


def logits_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """``T^2 KL(teacher || student)`` at temperature ``T`` (Hinton et al., arXiv 1503.02531). Both ``[B, C]``."""
    target = functional.log_softmax(teacher / temperature, dim=-1)
    log_probabilities = functional.log_softmax(student / temperature, dim=-1)
    divergence = functional.kl_div(log_probabilities, target, reduction="batchmean", log_target=True)
    return divergence * temperature**2


def square_head_loss(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """Squared distance of token states relative to the teacher's mean square (Kurtic et al., arXiv 2310.06927).

    Args:
        student: ``[B, S, D]``.
        teacher: ``[B, S, D]``.
        mask: ``[B, S]``, one where the token counts.
    """
    weights = mask.unsqueeze(-1).to(student.dtype)
    distance = ((student - teacher).square() * weights).sum()
    return distance / (teacher.square() * weights).sum().clamp_min(torch.finfo(torch.float32).tiny)


def cosine_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """One minus the cosine of corresponding embeddings. Both ``[B, D]``."""
    return (1 - functional.cosine_similarity(student, teacher, dim=-1)).mean()


def relational_loss(student: Tensor, teacher: Tensor, spread: float) -> Tensor:
    """Mean squared difference of the cosines within the batch (Park et al., arXiv 1904.05068, with cosines).

    Args:
        student: ``[B, D]``; the loss is zero for a single row.
        teacher: ``[B, D]``.
        spread: Variance of the teacher's cosines (:func:`similarity_variance`), so that one weight fits data sets of
            similar and of very different texts. Of many texts: that of two or three may be almost zero by chance.
    """
    if student.shape[0] < 2:
        return student.sum() * 0.0
    return (_similarities(student) - _similarities(teacher)).square().mean() / spread


def similarity_variance(embeddings: Tensor) -> float:
    """Return the variance of the cosines of different rows ``[B, D]``, at least 0.001."""
    if embeddings.shape[0] < 2:
        return LEAST_SPREAD
    return max(LEAST_SPREAD, float(_similarities(embeddings).var(correction=0)))


def _similarities(embeddings: Tensor) -> Tensor:
    """Return the cosines of all pairs of different rows."""
    unit = functional.normalize(embeddings, dim=-1)
    different = ~torch.eye(len(unit), dtype=torch.bool)
    return (unit @ unit.T)[different]
