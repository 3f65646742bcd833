"""Disjoint parts of a dataset: for calibration, for the search, and for the held-out verdict."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidDatasetError
from profilers.quality.examples import Examples

Indices = NDArray[np.int64]

SHARES = {"calibration": 0.25, "search": 0.40, "holdout": 0.35}
"""Shares of the *distinct* texts when one file has to serve for everything."""
MIN_TEXTS = 2
"""Distinct texts that each part needs at least; far more are needed for narrow intervals."""


@dataclass(frozen=True)
class Splits:
    """Positions in the dataset, ascending, int64; no text is in two parts.

    Attributes:
        calibration: empty where calibration data were given separately.
        search: what decides during the search.
        holdout: touched once, for what is reported.
    """

    calibration: Indices
    search: Indices
    holdout: Indices


def split(examples: Examples, *, separate_calibration: bool, seed: int = 0) -> Splits:
    """Split by the hash of the text, so that the same text is always on the same side, whatever its row or label.

    Texts are compared after collapsing blanks and case, so that near-duplicates stay together.

    Args:
        examples: The dataset.
        separate_calibration: Calibration data come from elsewhere: two parts instead of three.
        seed: Gives another split of the same data.

    Raises:
        InvalidDatasetError: Too few distinct texts.
    """
    names = ["search", "holdout"] if separate_calibration else ["calibration", "search", "holdout"]
    keys = np.array([_digest(key, seed) for key in text_keys(examples)])
    distinct, group = np.unique(keys, return_inverse=True)  # sorted by hash: a random but repeatable order
    least = MIN_TEXTS * len(names)
    if len(distinct) < least:
        raise InvalidDatasetError(
            f"The dataset has {len(distinct)} distinct texts; {least} are the least that can be split.",
            hint="Give more examples: a few hundred at least, for results with narrow intervals some thousands.",
        )
    shares = np.cumsum([SHARES[name] for name in names])
    ends = np.round(shares / shares[-1] * len(distinct)).astype(np.int64)
    minimum = MIN_TEXTS * np.arange(1, len(names) + 1)  # every part gets its share, or at least this much
    ends = np.clip(ends, minimum, len(distinct) - least + minimum)
    part = np.searchsorted(ends, group, side="right")
    chosen = {name: np.flatnonzero(part == index).astype(np.int64) for index, name in enumerate(names)}
    return Splits(chosen.get("calibration", np.empty(0, dtype=np.int64)), chosen["search"], chosen["holdout"])


def without_overlap(calibration: Examples, evaluation: Examples) -> Indices:
    """Return the positions in ``calibration`` of texts that the evaluation data do not contain, each text once."""
    seen = set(text_keys(evaluation))
    kept = []
    for index, key in enumerate(text_keys(calibration)):
        if key not in seen:
            seen.add(key)
            kept.append(index)
    return np.array(kept, dtype=np.int64)


def text_keys(examples: Examples) -> list[str]:
    """Return what makes two examples the same: their texts without case and with single blanks."""
    pairs: Sequence[str] = examples.pairs or ("",) * len(examples)
    return ["\x1f".join((_normal(text), _normal(pair))) for text, pair in zip(examples.texts, pairs, strict=True)]


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())


def _digest(key: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\x1e{key}".encode()).hexdigest()
