"""Whether the calibration text is enough for the statistics of every input, and how much would be."""

import math

from compressors.calibration.statistics import Calibration
from workers.operations.data import CALIBRATION_EXAMPLES
from workers.operations.data import gram_texts


def calibration_notice(calibration: Calibration, texts: int, available: int, *, separate: bool) -> str | None:
    """Say in words that a Gram matrix has fewer tokens than channels, where it is so: it leaves directions open.

    Args:
        calibration: The statistics.
        texts: Texts that they are taken of.
        available: Texts for calibration, with those that options are scored on.
        separate: Calibration data were given; otherwise they are a part of the evaluation data.
    """
    widest = max(source.width for source in calibration.inputs.values())
    tokens = calibration.tokens
    if tokens >= widest:
        return None
    needed = math.ceil(widest * texts / tokens)
    if needed > CALIBRATION_EXAMPLES:
        remedy = f"Longer texts for calibration would do: no more than {CALIBRATION_EXAMPLES} are read."
    else:
        enough = next(count for count in range(needed, 2 * needed + 2) if gram_texts(count) >= needed)
        remedy = (
            f"About {enough - available} more texts like these for calibration would do."
            if separate
            else f"A calibration set of its own with about {enough} texts like these would do."
        )
    return (
        f"The calibration text has {tokens} tokens, and the widest input of the model {widest} channels: what is "
        f"removed there is made up for less well than it could be. {remedy}"
    )
