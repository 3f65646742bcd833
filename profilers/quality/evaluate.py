"""Run a deployed artifact over examples and compare it with the dense model."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from profilers.protocol import Handle
from profilers.quality import metrics
from profilers.quality.encode import EncodedTexts
from profilers.quality.paired import mcnemar
from profilers.quality.paired import mean_estimate
from profilers.types import Quality
from profilers.types import Workload

Floats = NDArray[np.float64]
Task = Literal["sequence-classification", "embedding"]
Split = Literal["calibration", "search", "holdout"]

_OUTPUTS: dict[Task, str] = {"sequence-classification": "logits", "embedding": "sentence_embedding"}


@dataclass(frozen=True)
class PerExample:
    """What the summary was computed from; arrays over examples.

    Attributes:
        outputs: logits ``[examples, classes]`` or embeddings ``[examples, width]``, float32.
        divergence: KL(dense || candidate) in nats, or 1 - cosine, ``[examples]``.
        fidelity: 1 where the prediction is the dense one, or the cosine, ``[examples]``.
        correct: 1 where the prediction is the label; ``None`` without labels.
    """

    outputs: NDArray[np.float32]
    divergence: Floats
    fidelity: Floats
    correct: Floats | None


def run_all(
    handle: Handle, encoded: EncodedTexts, task: Task, workload: Workload, *, padded: bool
) -> NDArray[np.float32]:
    """Return the model's output for every text, float32 ``[examples, width]``.

    Args:
        handle: A loaded artifact; for ``padded=False`` it must accept any shape.
        encoded: The texts; they are cut to the workload's length in both modes.
        task: Names the output.
        workload: Batch and sequence length of the deployed model.
        padded: ``True``: batches of exactly the workload's shape, as deployed: dynamic int8 gives other results at
            other shapes. ``False``: one text at a time at its own length: several times cheaper on short texts.

    Raises:
        InvalidModelError: The output is missing, is not ``[batch, width]``, or is not finite.
    """
    if len(encoded) == 0:
        raise InvalidInputError("There are no examples to evaluate.", hint="Give a dataset with at least one row.")
    rows: list[NDArray[np.float32]] = []
    if padded:
        for real, feeds in encoded.batches(workload.batch, workload.sequence_length):
            rows.append(_output(handle.run(feeds), task)[: len(real)])
    else:
        short = encoded.truncated(workload.sequence_length)
        rows.extend(_output(handle.run(short.batch([index])), task) for index in range(len(short)))
    outputs = np.concatenate(rows)
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs)).any(axis=1).sum())
        raise InvalidModelError(
            f"The model's output is not finite for {bad} of {len(outputs)} examples.",
            hint="The compression broke the model numerically: choose a milder one.",
        )
    return outputs


def evaluate(
    handle: Handle,
    encoded: EncodedTexts,
    dense_outputs: NDArray[np.floating],
    labels: NDArray[np.int64] | None,
    task: Task,
    workload: Workload,
    *,
    split: Split,
    padded: bool,
    seed: int = 0,
) -> tuple[Quality, PerExample]:
    """Evaluate an artifact on examples, paired with the dense model.

    Args:
        handle: The artifact.
        encoded: The texts.
        dense_outputs: Output of the dense model for the same texts, ``[examples, width]``.
        labels: Class ids ``[examples]``, or ``None``: then the metric is ``fidelity``.
        task: What the output means.
        workload: Shape of the deployed model.
        split: Which part of the data this is, for the record.
        padded: See :func:`run_all`.
        seed: Of the bootstrap.

    Raises:
        InvalidInputError: The numbers of texts, dense outputs and labels differ.
        InvalidModelError: The artifact does not have the expected output.
    """
    if len(dense_outputs) != len(encoded) or (labels is not None and len(labels) != len(encoded)):
        raise InvalidInputError(
            f"{len(encoded)} texts, {len(dense_outputs)} dense outputs and"
            f" {'no' if labels is None else len(labels)} labels do not belong together.",
            hint="Evaluate the dense model on the same split.",
        )
    outputs = run_all(handle, encoded, task, workload, padded=padded)
    return compare(outputs, dense_outputs, labels, task, split=split, padded=padded, seed=seed)


def compare(
    outputs: NDArray[np.floating],
    dense_outputs: NDArray[np.floating],
    labels: NDArray[np.int64] | None,
    task: Task,
    *,
    split: Split,
    padded: bool,
    seed: int = 0,
) -> tuple[Quality, PerExample]:
    """Compare outputs that have been computed already; arguments as for :func:`evaluate`.

    Raises:
        InvalidModelError: The outputs differ in shape from the dense ones.
    """
    if outputs.shape != dense_outputs.shape:
        raise InvalidModelError(
            f"The model's output has the shape {outputs.shape}, the dense model's {dense_outputs.shape}.",
            hint="The number of classes or the embedding width must stay what it was.",
        )
    candidate, dense = outputs.astype(np.float64), dense_outputs.astype(np.float64)
    if task == "embedding":
        return _embedding(candidate, dense, split=split, padded=padded, seed=seed)
    return _classification(candidate, dense, labels, split=split, padded=padded, seed=seed)


def _classification(
    candidate: Floats, dense: Floats, labels: NDArray[np.int64] | None, *, split: Split, padded: bool, seed: int
) -> tuple[Quality, PerExample]:
    divergence = metrics.kl_divergence(dense, candidate)
    same = metrics.agreement(dense, candidate)
    details = {
        "flips": float((1 - same).sum()),
        "kl_p99": float(np.quantile(divergence, 0.99)),
        "max_logit_difference": float(np.abs(candidate - dense).max()),
    }
    right = None
    value, reference = same, np.ones_like(same)
    if labels is not None:
        right, reference = metrics.correct(candidate, labels), metrics.correct(dense, labels)
        value = right
        details["mcnemar_p"] = mcnemar(reference, right)
    quality = Quality(
        metric="accuracy" if labels is not None else "fidelity",
        value=mean_estimate(value, seed, lowest=0.0),
        dense=float(reference.mean()),
        drop=mean_estimate(reference - value, seed),
        divergence=float(divergence.mean()),
        fidelity=float(same.mean()),
        details=details,
        examples=len(candidate),
        split=split,
        padded=padded,
    )
    return quality, PerExample(candidate.astype(np.float32), divergence, same, right)


def _embedding(
    candidate: Floats, dense: Floats, *, split: Split, padded: bool, seed: int
) -> tuple[Quality, PerExample]:
    closeness = metrics.cosine(dense, candidate)
    details = {"cosine_p01": float(np.quantile(closeness, 0.01))}
    if len(dense) > 2:
        subset = metrics.relational_subset(len(dense))
        details["neighbour_overlap"] = float(metrics.neighbour_overlap(dense[subset], candidate[subset]).mean())
        details["similarity_spearman"] = metrics.similarity_correlation(dense[subset], candidate[subset])
    quality = Quality(
        metric="fidelity",
        value=mean_estimate(closeness, seed),
        dense=1.0,
        drop=mean_estimate(1.0 - closeness, seed),
        divergence=float((1.0 - closeness).mean()),
        fidelity=float(closeness.mean()),
        details=details,
        examples=len(candidate),
        split=split,
        padded=padded,
    )
    return quality, PerExample(candidate.astype(np.float32), 1.0 - closeness, closeness, None)


def _output(results: dict[str, NDArray[np.generic]], task: Task) -> NDArray[np.float32]:
    name = _OUTPUTS[task]
    if name in results:
        value = results[name]
    elif len(results) == 1:  # a model that was exported elsewhere
        value = next(iter(results.values()))
    else:
        raise InvalidModelError(
            f"The model has no output {name!r}; it has: {', '.join(results)}.", hint=f"Name the output {name!r}."
        )
    if value.ndim != 2:
        raise InvalidModelError(
            f"The model's output has the shape {value.shape}; expected [batch, width].",
            hint="Put the task's head, or the pooling, into the model.",
        )
    return value.astype(np.float32)
