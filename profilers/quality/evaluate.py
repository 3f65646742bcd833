"""Run a deployed artifact over a split and summarise its quality."""

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from profilers.protocol import Handle
from profilers.quality import metrics
from profilers.quality.encode import Encoded
from profilers.quality.paired import bootstrap_drop
from profilers.quality.paired import bootstrap_mean
from profilers.quality.paired import mcnemar_p
from profilers.quality.splits import Split
from profilers.types import Quality
from profilers.types import Workload

Outputs = NDArray[np.float32]
Progress = Callable[[int, int], None]


def run(
    handle: Handle, encoded: Encoded, *, padded: Workload | None = None, progress: Progress | None = None
) -> Outputs:
    """Return the artifact's output for every example: float32 ``[examples, width]``.

    Args:
        handle: The loaded artifact.
        encoded: The examples.
        padded: Run at this workload's batch and sequence length, as deployed (the last batch is filled up with copies);
            ``None``: one by one at their own lengths, which is faster and, for dynamically quantised models, a
            slightly different function.
        progress: Called with (examples done, examples in total).
    """
    batch, length = (padded.batch, padded.sequence_length) if padded else (1, None)
    outputs: list[Outputs] = []
    for start in range(0, len(encoded), batch):
        rows = list(range(start, min(start + batch, len(encoded))))
        filled = rows + [rows[-1]] * (batch - len(rows))
        result = next(iter(handle.run(encoded.batch(filled, length)).values()))
        outputs.append(np.asarray(result, dtype=np.float32)[: len(rows)])
        if progress is not None:
            progress(rows[-1] + 1, len(encoded))
    return np.concatenate(outputs)


def judge(
    outputs: Outputs,
    dense: Outputs,
    labels: NDArray[np.int64] | None,
    *,
    task: str,
    split: Split,
    padded: bool,
    seed: int = 0,
) -> Quality:
    """Summarise outputs against the dense model's on the same examples.

    Args:
        outputs: ``[examples, width]``.
        dense: The same of the dense model.
        labels: Class indices ``[examples]``, or ``None``.
        task: ``sequence-classification`` | ``embedding``.
        split: Where the examples come from.
        padded: Whether they were run at the workload's shape.
        seed: Of the bootstrap.
    """
    if task == "embedding":
        return _embedding(outputs, dense, split, padded, seed)
    return _classification(outputs, dense, labels, split, padded, seed)


def _classification(
    outputs: Outputs, dense: Outputs, labels: NDArray[np.int64] | None, split: Split, padded: bool, seed: int
) -> Quality:
    divergence, same = metrics.kl_divergence(outputs, dense), metrics.agreement(outputs, dense)
    details = {"flips": float((1 - same).sum()), "kl_p99": float(np.quantile(divergence, 0.99))}
    metric: Literal["accuracy", "fidelity"] = "fidelity"
    ours, theirs = same, np.ones_like(same)
    if labels is not None:
        metric = "accuracy"
        ours, theirs = metrics.accuracy(outputs, labels), metrics.accuracy(dense, labels)
        details["mcnemar_p"] = mcnemar_p(theirs, ours)
    return Quality(
        metric=metric,
        value=bootstrap_mean(ours, seed),
        dense=float(theirs.mean()),
        drop=bootstrap_drop(theirs, ours, seed),
        divergence=float(divergence.mean()),
        fidelity=float(same.mean()),
        details=details,
        examples=len(outputs),
        split=split,
        padded=padded,
    )


def _embedding(outputs: Outputs, dense: Outputs, split: Split, padded: bool, seed: int) -> Quality:
    similarity = np.minimum(metrics.cosine(outputs, dense), 1.0)
    details = {
        "cosine_p01": float(np.quantile(similarity, 0.01)),
        "neighbour_overlap": float(metrics.neighbour_overlap(outputs, dense).mean()),
        "similarity_rank_correlation": metrics.similarity_rank_correlation(outputs, dense),
    }
    value = bootstrap_mean(similarity, seed)
    return Quality(
        metric="fidelity",
        value=value,
        dense=1.0,
        drop=bootstrap_drop(np.ones_like(similarity), similarity, seed),
        divergence=max(0.0, 1.0 - value.value),
        fidelity=max(0.0, value.value),
        details=details,
        examples=len(outputs),
        split=split,
        padded=padded,
    )
