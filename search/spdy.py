"""Unit weights in few dimensions: how much the error of one branch counts against that of another.

SPDY (Frantar and Alistarh, 2022) searches one weight per unit. A handful of shape parameters reaches most of that in a
fraction of the trials: attention against feed-forward, and a profile over depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.options import Branch
from search.solver import FloatArray


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


def unit_weights(shape: WeightShape, branches: Sequence[Branch], depths: Sequence[float]) -> FloatArray:
    """Return one positive weight per unit, with a geometric mean of 1.

    Args:
        shape: The parameters.
        branches: Branch of each unit.
        depths: Position of each unit's layer, 0 for the first layer to 1 for the last.
    """
    depth = np.asarray(depths, dtype=np.float64)
    is_attention = np.array([branch == "attention" for branch in branches], dtype=np.float64)
    logarithm = (
        shape.attention * (is_attention - 0.5)
        + shape.slope * (depth - 0.5)
        + shape.bow * (4 * depth * (1 - depth) - 0.5)
    )
    return np.asarray(np.exp(logarithm - logarithm.mean()))


def fit_weights(errors: FloatArray, losses: FloatArray, prior: FloatArray, prior_weight: float) -> FloatArray:
    """Learn unit weights from evaluated candidates: ``loss ~ sum_u weight_u * error_u`` with non-negative weights.

    Args:
        errors: ``[candidates, units]``, error of the option that each candidate has in each unit.
        losses: ``[candidates]``, their measured loss.
        prior: ``[units]``, weights to stay near to where the candidates say nothing.
        prior_weight: How many candidates the prior is worth.

    Returns:
        ``[units]``; the prior, scaled to the losses, if there are no candidates.
    """
    from scipy.optimize import nnls

    if len(errors) == 0:
        return prior
    expected = errors @ prior
    scale = float((expected @ np.maximum(losses, 0.0)) / max(float(expected @ expected), 1e-12)) or 1.0
    start = prior * scale
    # Relative weighting keeps the strongest compression from deciding alone.
    row_weight = 1.0 / np.maximum(expected * scale, np.median(expected * scale) * 0.1 + 1e-12)
    typical = np.sqrt(np.mean((errors * row_weight[:, None]) ** 2, axis=0)) + 1e-9
    ridge = np.sqrt(prior_weight) * np.diag(typical)
    design = np.vstack([errors * row_weight[:, None], ridge])
    target = np.concatenate([np.maximum(losses, 0.0) * row_weight, ridge @ start])
    weights, _ = nnls(design, target)
    return np.asarray(np.maximum(weights, start * 1e-3))
