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


def fit_weights(errors: FloatArray, losses: FloatArray, prior: FloatArray, prior_weight: float) -> FloatArray:
    """Learn unit weights from evaluated candidates: ``loss ~ sum_u weight_u * error_u`` with non-negative weights.

    Args:
        errors: ``[candidates, parts]``, error of the option that each candidate has in each unit, and of each layer
            that is gone; zeros for its units then.
        losses: ``[candidates]``, their measured loss.
        prior: ``[parts]``, weights to stay near to where the candidates say nothing.
        prior_weight: How many candidates the prior is worth.

    Returns:
        ``[parts]``; the prior where no candidate has an error, scaled to the losses of the others if there are any.
    """
    if len(errors) == 0:
        return prior
    expected = errors @ prior
    scale = float((expected @ np.maximum(losses, 0.0)) / max(float(expected @ expected), 1e-12)) or 1.0
    start = prior * scale
    seen = errors.any(axis=0)  # nothing pulls the weight of any other from zero
    weights = start.copy()
    if seen.any():
        weights[seen] = _fit_seen(errors[:, seen], losses, start[seen], prior_weight)
    return weights


def _fit_seen(errors: FloatArray, losses: FloatArray, start: FloatArray, prior_weight: float) -> FloatArray:
    """Fit the weights of parts that have an error in some candidate each."""
    from scipy.optimize import nnls

    expected = errors @ start
    # Relative weighting keeps the strongest compression from deciding alone.
    row_weight = 1.0 / np.maximum(expected, np.median(expected) * 0.1 + 1e-12)
    typical = np.sqrt(np.mean((errors * row_weight[:, None]) ** 2, axis=0)) + 1e-9
    ridge = np.sqrt(prior_weight) * np.diag(typical)
    design = np.vstack([errors * row_weight[:, None], ridge])
    target = np.concatenate([np.maximum(losses, 0.0) * row_weight, ridge @ start])
    weights, _ = nnls(design, target)
    return np.asarray(np.maximum(weights, start * 1e-3))
