"""Unit weights in few dimensions: how much the error of one branch counts against that of another.

SPDY (Frantar and Alistarh, 2022) searches one weight per unit. A handful of shape parameters reaches most of that in a
fraction of the trials: attention against feed-forward, and a profile over depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from search.options import Branch
from search.solver import FloatArray

Part = Branch | Literal["layer"]
"""What has a weight: a branch, or a layer that goes as a whole."""
LEAST_FACTOR = 1e-3
"""Of its prior that a part weighs at least: nothing is free."""
_NOTHING = 1e-12
_ATTENTION: dict[Part, float] = {"attention": 1.0, "layer": 0.5, "feed_forward": 0.0}


@dataclass(frozen=True)
class WeightShape:
    """Logarithms of unit weights; all zero means that errors are taken at face value.

    Attributes:
        attention: Attention against feed-forward.
        slope: Last layer against the first.
        bow: Middle layers against the outer ones.
    """

    attention: float = 0.0
    slope: float = 0.0
    bow: float = 0.0


def unit_weights(shape: WeightShape, parts: Sequence[Part], depths: Sequence[float]) -> FloatArray:
    """Return one positive weight per part, with a geometric mean of 1.

    Args:
        shape: The parameters.
        parts: What each part is.
        depths: Position of each part's layer, 0 for the first layer to 1 for the last.
    """
    depth = np.asarray(depths, dtype=np.float64)
    attention = np.array([_ATTENTION[part] for part in parts], dtype=np.float64)
    logarithm = (
        shape.attention * (attention - 0.5) + shape.slope * (depth - 0.5) + shape.bow * (4 * depth * (1 - depth) - 0.5)
    )
    return np.asarray(np.exp(logarithm - logarithm.mean()))


def fit_weights(
    errors: FloatArray,
    losses: FloatArray,
    prior: FloatArray,
    prior_weight: float,
    largest: FloatArray | None = None,
) -> FloatArray:
    """Learn unit weights from evaluated candidates: ``loss ~ sum_u weight_u * error_u`` with non-negative weights.

    A weight is held the nearer to the prior the larger the error that it may be applied to: what small errors of a part
    seem to weigh, those of its rounding for example, must not be taken for what its removal would cost.

    Args:
        errors: ``[candidates, parts]``, error of the option that each candidate has in each unit, and of each layer
            that is gone; zeros for its units then.
        losses: ``[candidates]``, their measured loss.
        prior: ``[parts]``, weights to stay near to where the candidates say nothing.
        prior_weight: How many candidates with the largest error of a part the prior is worth.
        largest: ``[parts]``, the largest error that each part can have; ``None``: that it has in a candidate.

    Returns:
        ``[parts]``, scaled so that their sums are the candidates' losses on the whole; the prior where no candidate has
        an error.
    """
    expected = errors @ prior if len(errors) else np.zeros(0)
    told = (expected > _NOTHING) & (losses > _NOTHING)
    if not told.any():
        return prior
    errors, losses, expected = errors[told], losses[told], expected[told]
    scale = float((expected @ losses) / (expected @ expected))
    seen = errors.any(axis=0)  # nothing pulls the weight of any other from zero
    weights = prior * scale
    largest = errors.max(axis=0) if largest is None else largest
    weights[seen] *= _factors(errors[:, seen] * prior[seen], losses / scale, prior_weight, (largest * prior)[seen])
    return weights


def _factors(errors: FloatArray, losses: FloatArray, prior_weight: float, largest: FloatArray) -> FloatArray:
    """Fit what multiplies each part's errors, near 1 and not negative."""
    from scipy.optimize import nnls

    # Relative weighting keeps the strongest compression from deciding alone.
    expected = errors.sum(axis=1)
    row_weight = 1.0 / np.maximum(expected, np.median(expected) * 0.1)
    shares = errors * row_weight[:, None]
    ridge = np.sqrt(prior_weight) * np.median(row_weight) * np.diag(largest)
    factors, _ = nnls(np.vstack([shares, ridge]), np.concatenate([losses * row_weight, ridge.sum(axis=1)]))
    return np.asarray(np.maximum(factors, LEAST_FACTOR))
