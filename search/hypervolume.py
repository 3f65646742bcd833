"""Hypervolume indicator: the volume that a set of points dominates below a reference point, all minimised.

Two objectives are swept once; more are cut into slabs along the last objective, each the hypervolume of one
dimension less (the *hypervolume by slicing objectives* scheme of While et al., 2006). Exact, and fast enough for
fronts of a few hundred points in three objectives.
"""

import numpy as np
from numpy.typing import ArrayLike
from numpy.typing import NDArray


def hypervolume(points: ArrayLike, reference: ArrayLike) -> float:
    """Return the volume of the union of the boxes between each point and ``reference``.

    Args:
        points: ``[points, objectives]``; points that are not better than the reference in every objective add nothing.
        reference: ``[objectives]``.

    Returns:
        The volume; 0.0 for no points.

    Raises:
        ValueError: If the shapes do not fit or a value is NaN.
    """
    corner = np.asarray(reference, dtype=np.float64)
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return 0.0
    if array.ndim != 2 or corner.shape != (array.shape[1],):
        raise ValueError(f"shapes do not fit: points {array.shape}, reference {corner.shape}")
    if np.isnan(array).any() or np.isnan(corner).any():
        raise ValueError("points and reference must not contain NaN")
    inside = array[(array < corner).all(axis=1)]
    return _volume(inside, corner)


def _volume(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(reference[0] - points[:, 0].min())
    if points.shape[1] == 2:
        return _area(points, reference)
    points = points[np.argsort(points[:, -1], kind="stable")]
    tops = np.append(points[1:, -1], reference[-1])
    heights = tops - points[:, -1]
    return float(
        sum(
            height * _volume(points[: count + 1, :-1], reference[:-1])
            for count, height in enumerate(heights)
            if height > 0
        )
    )


def _area(points: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
    points = points[np.lexsort((points[:, 1], points[:, 0]))]
    lowest = np.minimum.accumulate(points[:, 1])
    # Left of a point's x the staircase has the height that the points before it reached.
    widths = np.append(points[1:, 0], reference[0]) - points[:, 0]
    return float((widths * (reference[1] - lowest)).sum())
