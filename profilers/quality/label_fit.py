"""Whether the dense model's predictions go with the labels.

Classes in another order than the model's make every later number void: the model is right less often than one that
ignores the text, and the more a candidate is destroyed, the more quality it seems to gain.
"""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from infra.errors import InvalidDatasetError
from profilers.quality.paired import mcnemar

Ids = NDArray[np.int64]

SIGNIFICANCE = 0.01
"""Largest p-value of what is said about the labels: few examples, or a weak model, must not be refused by chance."""
_SHOWN_CLASSES = 10


def check_labels(predicted: Mapping[str, Ids], labels: Mapping[str, Ids], names: Sequence[str]) -> str | None:
    """Compare the dense model with always giving the most common answer, and with the classes in another order.

    The data are refused where the model is clearly below the most common answer, and where it is not clearly above it
    while another order of the classes clearly fits better. That order is found on one part and tested on the other, so
    that trying many orders costs no certainty. Tests are McNemar's, at the level :data:`SIGNIFICANCE`.

    Args:
        predicted: The dense model's classes on the parts ``search`` and ``holdout``, int64 ``[examples]``.
        labels: The same from the data.
        names: The model's classes.

    Returns:
        What its user should know of labels that are taken as they are, in words; ``None``: nothing.

    Raises:
        InvalidDatasetError: The labels do not fit the model.
    """
    guesses = np.concatenate([predicted["search"], predicted["holdout"]])
    truth = np.concatenate([labels["search"], labels["holdout"]])
    common = int(np.bincount(truth).argmax())
    right, constant = (guesses == truth).astype(np.float64), (truth == common).astype(np.float64)
    clear = mcnemar(constant, right) < SIGNIFICANCE
    accuracy, share = float(right.mean()), float(constant.mean())
    facts = (
        f"the dense model is right on {accuracy:.1%} of {len(truth)} examples, and always answering "
        f"{names[common]!r} would be on {share:.1%}"
    )
    better_order = _better_order(predicted, labels, names)
    if (clear and accuracy < share) or (better_order and not (clear and accuracy > share)):
        raise InvalidDatasetError(
            f"The labels do not fit the model: {facts}.{better_order}",
            hint="Give the labels as the model's class names, which leave no doubt about their order, and see that "
            f"id2label in its config.json is right; it says {_listed(names)}. If the labels are right, accuracy cannot "
            "tell a good model from a destroyed one here: give examples in which the classes are less unequal, or "
            "leave the labels out, and quality is closeness to the dense model.",
            errors=_confusion(guesses, truth, names),
        )
    if better_order:
        return f"Some labels may be in another order than the model's classes: {facts}.{better_order}"
    if accuracy <= share:
        return f"The labels hardly tell good models from bad ones: {facts}."
    return None


def _better_order(predicted: Mapping[str, Ids], labels: Mapping[str, Ids], names: Sequence[str]) -> str:
    """Say in which other order of the classes clearly more predictions are right; an empty text if there is none."""
    classes = len(names)
    # Predicted class -> the label that it has to be read as for the most predictions to be right.
    _, order = linear_sum_assignment(_table(predicted["search"], labels["search"], classes).T, maximize=True)
    here = (predicted["holdout"] == labels["holdout"]).astype(np.float64)
    there = (order[predicted["holdout"]] == labels["holdout"]).astype(np.float64)
    if there.mean() <= here.mean() or mcnemar(here, there) >= SIGNIFICANCE:
        return ""
    moved = sorted((int(label), names[number]) for number, label in enumerate(order) if label != number)
    readings = _few([f"{label} as {name!r}" for label, name in moved])
    return f" Reading the label {readings}, it is right on {there.mean():.1%} of those that this was tested on."


def _table(predicted: Ids, labels: Ids, classes: int) -> Ids:
    """Return how many examples of each label (rows) have each prediction (columns), ``[classes, classes]``."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def _listed(names: Sequence[str]) -> str:
    return _few([f"{number}: {name}" for number, name in enumerate(names)])


def _few(parts: Sequence[str]) -> str:
    return ", ".join(parts[:_SHOWN_CLASSES]) + (", …" if len(parts) > _SHOWN_CLASSES else "")


def _confusion(predicted: Ids, labels: Ids, names: Sequence[str]) -> list[dict[str, str]]:
    """Return one line for each label that the data have, with what the model predicts there."""
    lines = []
    for label, counts in enumerate(_table(predicted, labels, len(names))):
        frequent = [int(number) for number in np.argsort(-counts, kind="stable") if counts[number]]
        predictions = _few([f"{counts[number]} x {names[number]}" for number in frequent])
        if frequent:
            lines.append({"field": f"label {label} ({names[label]})", "message": f"predicted {predictions}"})
    return lines[:_SHOWN_CLASSES]
