"""Disjoint parts of a dataset, the same in every process.

An example's part follows from a hash of its text, so that copies of a text stay together and adding rows moves none.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

from infra.errors import InvalidDatasetError
from profilers.quality.examples import Examples

Split = Literal["calibration", "search", "holdout"]

_WITH_CALIBRATION: Mapping[Split, float] = {"calibration": 0.3, "search": 0.35, "holdout": 0.35}
_WITHOUT_CALIBRATION: Mapping[Split, float] = {"search": 0.5, "holdout": 0.5}
LEAST_EXAMPLES = 8
"""Examples that each part needs; any claim about so few is wide, but nothing breaks."""


def split_examples(examples: Examples, *, calibration: bool, seed: int = 0) -> dict[Split, Examples]:
    """Divide a dataset.

    Args:
        examples: All of it.
        calibration: Whether a part is needed for calibration; otherwise there is separate text for that.
        seed: Of the division.

    Raises:
        InvalidDatasetError: There are too few examples.
    """
    shares = _WITH_CALIBRATION if calibration else _WITHOUT_CALIBRATION
    members: dict[Split, list[int]] = {name: [] for name in shares}
    for index in range(len(examples)):
        members[_part(_identity(examples, index), shares, seed)].append(index)
    smallest = min(members, key=lambda name: len(members[name]))
    if len(members[smallest]) < LEAST_EXAMPLES:
        raise InvalidDatasetError(
            f"The dataset has {len(examples)} examples; its part for {smallest} would have only "
            f"{len(members[smallest])}.",
            hint="Give a few hundred examples; intervals shrink with the square root of their number.",
        )
    return {name: examples.select(indices) for name, indices in members.items()}


def _identity(examples: Examples, index: int) -> str:
    second = "" if examples.second_texts is None else examples.second_texts[index]
    return f"{examples.texts[index]}\0{second}"


def _part(identity: str, shares: Mapping[Split, float], seed: int) -> Split:
    digest = hashlib.sha256(f"{seed}\0{identity}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for name, share in shares.items():
        position -= share
        if position < 0:
            return name
    return list(shares)[-1]
