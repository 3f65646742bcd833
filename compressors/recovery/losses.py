"""The terms of the recovery loss. Every function returns a scalar, float32, averaged over the batch."""

import torch
from torch import Tensor
from torch.nn import functional

from compressors.recovery.data import UNLABELLED


def task_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over the labelled rows; zero when there are none. logits ``[B, C]``, labels int64 ``[B]``."""
    if not bool((labels != UNLABELLED).any()):
        return logits.sum() * 0.0
    return functional.cross_entropy(logits, labels, ignore_index=UNLABELLED)


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


def relational_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of the cosines within the batch (Park et al., arXiv 1904.05068, with cosines).

    Scaled by the variance of the teacher's cosines, so that one weight fits data sets of similar and of very different
    texts. Both ``[B, D]``; zero for a single row.
    """
    rows = student.shape[0]
    if rows < 2:
        return student.sum() * 0.0
    different = ~torch.eye(rows, dtype=torch.bool)
    student, teacher = functional.normalize(student, dim=-1), functional.normalize(teacher, dim=-1)
    given, wanted = (student @ student.T)[different], (teacher @ teacher.T)[different]
    return (given - wanted).square().mean() / wanted.var(correction=0).clamp_min(1e-4)
