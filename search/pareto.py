"""Pareto dominance. All objectives are minimised; a point is a row of a ``[points, objectives]`` float array."""

import numpy as np
from numpy.typing import ArrayLike
from numpy.typing import NDArray

from search.hypervolume import hypervolume

FloatArray = NDArray[np.float64]


def as_points(points: ArrayLike) -> FloatArray:
    """Return ``points`` as a two-dimensional float64 array.

    Raises:
        ValueError: If it is not two-dimensional or holds a NaN, for which dominance has no meaning.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        return array.reshape(0, array.shape[1] if array.ndim == 2 else 0)
    if array.ndim != 2:
        raise ValueError(f"points must have the shape [points, objectives], not {array.shape}")
    if np.isnan(array).any():
        raise ValueError("points must not contain NaN")
    return array


def dominates(first: ArrayLike, second: ArrayLike) -> bool:
    """Whether ``first`` is nowhere worse and somewhere better than ``second``."""
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    return bool((a <= b).all() and (a < b).any())


def non_dominated(points: ArrayLike) -> NDArray[np.bool_]:
    """Mark the points that no other point dominates; equal points do not dominate each other.

    Args:
        points: ``[points, objectives]``.

    Returns:
        Boolean ``[points]``.
    """
    array = as_points(points)
    keep = np.ones(len(array), dtype=bool)
    # In lexicographic order a point can only be dominated by one that comes before it.
    order = np.lexsort(array.T[::-1]) if len(array) else np.empty(0, dtype=np.intp)
    front = np.empty((0, array.shape[1]))
    for index in order:
        point = array[index]
        if ((front <= point).all(axis=1) & (front < point).any(axis=1)).any():
            keep[index] = False
        else:
            front = np.vstack([front, point])
    return keep


def non_domination_ranks(points: ArrayLike) -> NDArray[np.intp]:
    """Peel fronts off one after another: rank 0 is the front, rank 1 the front of what is left, and so on."""
    array = as_points(points)
    ranks = np.full(len(array), -1, dtype=np.intp)
    rank = 0
    while (ranks < 0).any():
        left = np.flatnonzero(ranks < 0)
        ranks[left[non_dominated(array[left])]] = rank
        rank += 1
    return ranks


def thin(points: ArrayLike, reference: ArrayLike, size: int) -> list[int]:
    """Choose ``size`` points that keep as much hypervolume as a greedy choice can (within 1 - 1/e of the optimum).

    Args:
        points: ``[points, objectives]``.
        reference: ``[objectives]``, worse than every point that matters.
        size: How many to choose at most.

    Returns:
        Indices in the order of choice, the largest contribution first. Points that add nothing (dominated, equal, or
        beyond the reference) are not chosen.
    """
    array = as_points(points)
    chosen: list[int] = []
    volume = 0.0
    left = list(range(len(array)))
    while left and len(chosen) < size:
        volumes = [hypervolume(array[[*chosen, index]], reference) for index in left]
        best = int(np.argmax(volumes))
        if volumes[best] <= volume:
            break
        volume = volumes[best]
        chosen.append(left.pop(best))
    return chosen
