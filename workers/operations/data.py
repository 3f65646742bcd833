"""A job's examples: read, checked, tokenised and split, the same in every process."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressors.description import Anatomy
from profilers.quality.encode import EncodedTexts
from profilers.quality.encode import TextEncoder
from profilers.quality.evaluate import Split
from profilers.quality.examples import Examples
from profilers.quality.examples import read_examples
from profilers.quality.labels import LabelReader
from profilers.quality.splits import split
from profilers.quality.splits import without_overlap
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs

Feeds = dict[str, NDArray[np.int64]]

CALIBRATION_EXAMPLES = 512
"""Texts that are enough for the Gram matrices; more only cost time."""
SCORING_EXAMPLES = 1024
"""Texts that options are scored on, at most."""
SCORING_SHARE = 1 / 3
"""Part of the calibration texts that is kept for scoring where they are few: statistics of few texts fit these too well
to be judged by them, and texts of the evaluation must not teach the search anything before they judge it."""
ENOUGH_SCORING_EXAMPLES = 128
"""Scoring takes no more than this from the Gram matrices."""


@dataclass(frozen=True)
class JobData:
    """Tokenised splits with their labels.

    Attributes:
        texts: Token ids of each split.
        labels: Class ids of each split, int64 ``[examples]``, or ``None``.
        scoring: Texts on which options and combinations of them are compared with the dense model: of those for
            calibration, but none that is in ``texts["calibration"]``, unless there is only one.
        sequence_length: Of the workload; texts are cut to it.
    """

    texts: dict[Split, EncodedTexts]
    labels: dict[Split, NDArray[np.int64] | None]
    scoring: EncodedTexts
    sequence_length: int

    @classmethod
    def load(cls, inputs: JobInputs, anatomy: Anatomy) -> "JobData":
        """Read the job's files.

        Raises:
            InvalidDatasetError: A column is missing, a label is unknown, or there are too few examples.
            InvalidModelError: The tokenizer cannot be read.
        """
        classes = anatomy.labels if inputs.task == "sequence-classification" else ()
        examples = read_file(inputs, inputs.dataset, classes)
        separate = None if inputs.calibration is None else read_file(inputs, inputs.calibration, ())
        indices = split(examples, separate_calibration=separate is not None, seed=inputs.seed)
        parts: dict[Split, Examples] = {
            "search": examples.select(indices.search),
            "holdout": examples.select(indices.holdout),
        }
        if separate is None:
            parts["calibration"] = examples.select(indices.calibration)
        else:
            parts["calibration"] = separate.select(without_overlap(separate, examples))
        parts["calibration"], scoring = divide(parts["calibration"])
        encoder = TextEncoder(inputs.model, inputs.workload.sequence_length)
        return cls(
            texts={name: encoder.encode(part) for name, part in parts.items()},
            labels={name: part.labels for name, part in parts.items()},
            scoring=encoder.encode(scoring),
            sequence_length=inputs.workload.sequence_length,
        )

    @property
    def labelled(self) -> bool:
        """Whether quality is a labelled metric."""
        return self.labels["search"] is not None

    @property
    def sizes(self) -> dict[str, int]:
        """Number of examples of each split."""
        return {str(name): len(texts) for name, texts in self.texts.items()}

    def padded_batches(self, name: Split, size: int) -> Iterator[tuple[list[int], Feeds]]:
        """Yield batches of texts of similar lengths, padded to the longest of each, with their positions."""
        texts = self.texts[name]
        order = sorted(range(len(texts)), key=lambda index: len(texts.input_ids[index]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            yield rows, texts.batch(rows)

    def timing_feeds(self, batch: int) -> Feeds:
        """Return real tokens that fill ``[batch, sequence_length]`` without padding: what latency is measured on."""
        tokens = np.concatenate(self.texts["calibration"].input_ids)
        ids = np.resize(tokens, (batch, self.sequence_length))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

    def workload_feeds(self, name: Split) -> list[Feeds]:
        """Return each text padded to the workload's sequence length, ``[1, sequence_length]``."""
        texts = self.texts[name]
        return [texts.batch([index], self.sequence_length) for index in range(len(texts))]


def read_file(
    inputs: JobInputs,
    file: DataFile,
    classes: tuple[str, ...],
    *,
    label_required: bool | None = None,
    unlabelled: int | None = None,
) -> Examples:
    """Read one of the job's files.

    Args:
        inputs: The job's columns.
        file: What to read.
        classes: Names of the classes; without them labels are not read.
        label_required: Whether the label column must be there; default: if the request names it.
        unlabelled: Class id of rows without a label; default: they are refused.
    """
    columns = inputs.columns
    if label_required is None:
        label_required = "label_column" in columns.model_fields_set
    return read_examples(
        file.path,
        format=file.format,
        text_column=columns.text_column,
        second_text_column=columns.second_text_column,
        label_column=columns.label_column if classes else None,
        labels=LabelReader(dict(enumerate(classes))),
        label_required=label_required,
        unlabelled=unlabelled,
    )


def divide(calibration: Examples) -> tuple[Examples, Examples]:
    """Return the texts for the Gram matrices, and the texts to score with; no text is in both if there are two."""
    seen = _spread(len(calibration), gram_texts(len(calibration)))
    rest = np.setdiff1d(np.arange(len(calibration)), seen)
    scoring = rest[_spread(len(rest), SCORING_EXAMPLES)] if len(rest) else seen
    return calibration.select(seen), calibration.select(scoring)


def gram_texts(available: int) -> int:
    """Return how many of so many calibration texts the Gram matrices get."""
    least = min(ENOUGH_SCORING_EXAMPLES, max(1, round(SCORING_SHARE * available)))
    return min(CALIBRATION_EXAMPLES, max(1, available - least))


def _spread(available: int, count: int) -> NDArray[np.int64]:
    """Return ``count`` positions spread evenly over ``available``, or all of them."""
    if available <= count:
        return np.arange(available)
    return np.linspace(0, available - 1, count).astype(np.int64)


def load_timing_feeds(inputs: JobInputs) -> Feeds:
    """Return the inputs that latency is measured on, int64 ``[batch, sequence_length]``."""
    with np.load(inputs.timing_feeds_file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def load_dense_outputs(inputs: JobInputs) -> dict[str, NDArray[np.float32]]:
    """Return the outputs of the dense model on each split, ``[examples, labels or hidden]``."""
    with np.load(inputs.dense_outputs_file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
