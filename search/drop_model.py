"""How much quality a candidate really loses, judged from few examples.

On a few hundred labelled examples the drop of a candidate that changes one prediction in ten is known to about one and
a half points; a search that believes such numbers finds the luckiest candidate, not the best one. The share of
*changed* predictions is known far better, needs no labels, and drops grow with it in a way that all candidates of a job
share. So the drop is estimated twice, from the curve through all trials and from the candidate's own labels, and the
two are weighed by their variances (empirical Bayes; Efron & Morris 1973).

The curve itself is seen through the labels of one small split. Candidates change much the same predictions there, the
ones that the dense model was unsure of, so a hundred candidates are worth little more than one: with some thirty
changed labels the slope is known to about 0.2, and is often negative by luck. So it starts from what is usual.
"""

from collections.abc import Iterable
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from profilers.types import Quality

USUAL_SLOPE = 0.25
"""Points lost for each point of changed predictions, before there is evidence: of eight changed predictions, five were
right and three become right. A rule of thumb: on sets of a thousand examples and more such slopes were mostly between a
fifth and a third; on the few hundred of a search they say more about the labels than about the models."""
SLOPE_SPREAD = 0.05
BEND_SPREAD = 1.0
"""Standard deviations of the two coefficients of the curve before there is evidence; none is negative."""
LARGEST_CHANGE = 0.3
"""Beyond this share of changed predictions a model is broken, and says nothing about useful ones. What it seems to win
is not believed: it is expected to lose at least what the curve says."""
RELATIVE_SPREAD = 0.2
LEAST_SPREAD = 0.003
"""Standard deviation of true drops around the curve: a part of the curve's value, but at least this. The less it is,
the less a candidate's own labels count: those of a few hundred examples are mostly luck, which candidates share."""
SURE = 2.0
"""Standard deviations from the curve within which a true drop is taken to lie when it must not be overestimated, and
within which what a candidate seems to win is taken for luck."""


class Evidence(NamedTuple):
    """What one evaluation says: share of changed predictions, drop (a fraction), number of examples."""

    changed: float
    drop: float
    examples: int

    @classmethod
    def of(cls, quality: Quality) -> "Evidence":
        """Take it from a quality on labelled data."""
        return cls(1.0 - quality.fidelity, quality.drop.value, quality.examples)


class DropModel:
    """The curve ``drop = a * changed + b * changed ** 2`` of a job, with non-negative coefficients.

    They are rounded to two digits: more say nothing, and so one more trial among many leaves what is known of the
    others as it is.

    Args:
        splits: For each set of examples, the evaluations of the job's candidates on it.

    Attributes:
        curve: The coefficients. Equal curves expect the same drops.
    """

    def __init__(self, *splits: Iterable[Evidence]) -> None:
        seen = [_columns(split) for split in splits]
        useful = [split[:, (split[0] > 0.0) & (split[0] <= LARGEST_CHANGE)] for split in seen]
        slope, bend = _fit([split for split in useful if split.size])
        self.curve = float(f"{slope:.2g}"), float(f"{bend:.2g}")

    def expected(self, evidence: Sequence[Evidence]) -> float:
        """Return the expected drop of a candidate.

        Args:
            evidence: Its evaluations on different examples, at least one; they are pooled.
        """
        if len(evidence) == 1:
            return self.each(evidence)[0]
        examples = sum(item.examples for item in evidence)
        drop = sum(item.drop * item.examples for item in evidence) / examples
        changed = sum(item.changed * item.examples for item in evidence) / examples
        return self.each([Evidence(changed, drop, examples)])[0]

    def each(self, evidence: Sequence[Evidence]) -> list[float]:
        """Return the expected drop of each of several candidates that were evaluated once."""
        changed, drop, examples = _columns(evidence)
        prior = self.curve[0] * changed + self.curve[1] * changed**2
        spread = np.maximum(LEAST_SPREAD, RELATIVE_SPREAD * prior) ** 2
        noise = changed / examples  # of the difference between predictions lost and won
        # What a smaller model seems to win is luck, as far as few labels explain it: on one split all share it.
        own = np.where(drop < -SURE * np.sqrt(noise), drop, np.maximum(drop, 0.0))
        weighed = np.where(changed > 0.0, (own * spread + prior * noise) / (spread + noise), drop)
        expected: list[float] = np.where(changed > LARGEST_CHANGE, np.maximum(drop, prior), weighed).tolist()
        return expected


def least_drop(curve: tuple[float, float], changed: float) -> float:
    """Return what a model loses at least by a job's curve: so far below it that hardly any model is.

    Args:
        curve: :attr:`DropModel.curve`.
        changed: Share of changed predictions.
    """
    usual = curve[0] * changed + curve[1] * changed**2
    return max(0.0, usual - SURE * max(LEAST_SPREAD, RELATIVE_SPREAD * usual))


def _fit(splits: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float]:
    """Least squares over what is usual and what was seen, with both coefficients at least 0: ``(a, b)``.

    Args:
        splits: Of each split what :func:`_columns` returns.

    All candidates of a split together weigh as much as one of them, because they change the same predictions.
    """
    tables = [np.array([(1.0, 0.0, USUAL_SLOPE)]) / SLOPE_SPREAD, np.array([(0.0, 1.0, 0.0)]) / BEND_SPREAD]
    for split in splits:
        changed, drop, examples = split
        variance = (changed / examples + LEAST_SPREAD**2) * len(changed)
        tables.append(np.stack([changed, changed**2, drop], axis=1) / np.sqrt(variance)[:, None])
    table = np.concatenate(tables)
    design, seen = table[:, :2], table[:, 2]
    both = np.linalg.lstsq(design, seen, rcond=None)[0]
    if (both >= 0).all():
        return float(both[0]), float(both[1])
    singles = [max(0.0, float(column @ seen / (column @ column))) for column in design.T]
    errors = [float(((column * single - seen) ** 2).sum()) for column, single in zip(design.T, singles, strict=True)]
    return (singles[0], 0.0) if errors[0] <= errors[1] else (0.0, singles[1])


def _columns(evidence: Iterable[Evidence]) -> npt.NDArray[np.float64]:
    """Return changed predictions, drops and numbers of examples: ``[3, evaluations]``."""
    return np.fromiter(chain.from_iterable(evidence), np.float64).reshape(-1, 3).T
