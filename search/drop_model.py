"""How much quality a candidate really loses, judged from few examples.

On a few hundred labelled examples the drop of a candidate that changes one prediction in ten is known to about one and
a half points; a search that believes such numbers finds the luckiest candidate, not the best one. The share of
*changed* predictions is known far better, needs no labels, and drops grow with it in a way that all candidates of a job
share. So the drop is estimated twice, from the curve through all trials and from the candidate's own labels, and the
two are weighed by their variances (empirical Bayes; Efron & Morris 1973).
"""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profilers.types import Quality

FEWEST = 8
"""Candidates that the curve needs; before that, drops are taken as they are."""
LARGEST_CHANGE = 0.3
"""Beyond this share of changed predictions a model is broken, and says nothing about useful ones."""
RELATIVE_SPREAD = 0.35
LEAST_SPREAD = 0.003
"""Standard deviation of true drops around the curve: a part of the curve's value, but at least this."""


@dataclass(frozen=True)
class Evidence:
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

    They are rounded to three digits: more say nothing, and so one more trial among many leaves what is known of the
    others as it is.

    Args:
        evidence: Evaluations of the job's candidates on the search split.

    Attributes:
        curve: The coefficients, or ``None`` while there are too few candidates. Equal curves expect the same drops.
    """

    def __init__(self, evidence: Iterable[Evidence]) -> None:
        useful = [item for item in evidence if 0.0 < item.changed <= LARGEST_CHANGE]
        self.curve = tuple(_rounded(value) for value in _fit(useful)) if len(useful) >= FEWEST else None

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
        changed, drop, examples = (
            np.array([getattr(item, name) for item in evidence], dtype=np.float64)
            for name in ("changed", "drop", "examples")
        )
        if self.curve is None:
            return [float(value) for value in drop]
        prior = self.curve[0] * changed + self.curve[1] * changed**2
        spread = np.maximum(LEAST_SPREAD, RELATIVE_SPREAD * prior) ** 2
        noise = changed / examples  # of the difference between predictions lost and won
        known = (changed > 0.0) & (changed <= LARGEST_CHANGE)
        weighed: list[float] = np.where(known, (drop * spread + prior * noise) / (spread + noise), drop).tolist()
        return weighed


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _fit(evidence: Sequence[Evidence]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Weighted least squares with both coefficients at least 0: ``[a, b]``."""
    changed = np.array([item.changed for item in evidence])
    drop = np.array([item.drop for item in evidence])
    variance = changed / np.array([item.examples for item in evidence]) + LEAST_SPREAD**2
    scale = 1.0 / np.sqrt(variance)
    design = np.stack([changed, changed**2], axis=1) * scale[:, None]
    both = np.linalg.lstsq(design, drop * scale, rcond=None)[0]
    if (both >= 0).all():
        return np.array([float(both[0]), float(both[1])])
    singles = [max(0.0, float(column @ (drop * scale) / (column @ column))) for column in design.T]
    errors = [float((((design[:, k] * singles[k]) - drop * scale) ** 2).sum()) for k in range(2)]
    best = int(np.argmin(errors))
    return np.array([singles[0] if best == 0 else 0.0, singles[1] if best == 1 else 0.0])
