import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from optuna._hypervolume import compute_hypervolume

from search.hypervolume import hypervolume
from search.pareto import dominates
from search.pareto import non_dominated
from search.pareto import non_domination_ranks
from search.pareto import thin


@st.composite
def point_sets(draw, dimensions=(2, 3), most=12):
    """Small integers, so that ties and duplicates are frequent."""
    dimension = draw(st.sampled_from(dimensions))
    count = draw(st.integers(0, most))
    return draw(arrays(np.float64, (count, dimension), elements=st.integers(0, 5).map(float)))


def brute_force_front(points):
    return np.array([not any(dominates(other, point) for other in points) for point in points], dtype=bool)


def brute_force_volume(points, reference):
    """Count unit cells; exact for integer coordinates."""
    cells = itertools.product(*(range(int(limit)) for limit in reference))
    return float(sum(any(all(p[i] <= cell[i] for i in range(len(cell))) for p in points) for cell in cells))


@given(point_sets(dimensions=(1, 2, 3, 4)))
def test_front_equals_the_definition(points):
    assert (non_dominated(points) == brute_force_front(points)).all()


@given(point_sets(dimensions=(2, 3)))
def test_hypervolume_equals_counted_cells(points):
    reference = np.full(points.shape[1], 5.0)
    assert hypervolume(points, reference) == pytest.approx(brute_force_volume(points, reference))


@settings(max_examples=50)
@given(st.integers(2, 4), st.integers(1, 25), st.integers(0, 2**31 - 1))
def test_hypervolume_equals_that_of_optuna(dimension, count, seed):
    points = np.random.default_rng(seed).random((count, dimension))
    reference = np.full(dimension, 1.1)
    assert hypervolume(points, reference) == pytest.approx(compute_hypervolume(points, reference))


@given(point_sets(), st.integers(0, 5).map(float))
def test_hypervolume_never_shrinks_with_another_point(points, value):
    reference = np.full(points.shape[1], 4.0)
    more = np.vstack([points, np.full(points.shape[1], value)])
    assert hypervolume(more, reference) >= hypervolume(points, reference) - 1e-12


@given(point_sets())
def test_ranks_peel_fronts(points):
    ranks = non_domination_ranks(points)
    assert ((ranks == 0) == non_dominated(points)).all()
    for index, rank in enumerate(ranks):
        if rank > 0:
            assert any(dominates(points[j], points[index]) for j in np.flatnonzero(ranks == rank - 1))


@given(point_sets(), st.integers(1, 4))
def test_thinning_keeps_front_points_and_is_at_least_greedy_optimal(points, size):
    reference = np.full(points.shape[1], 6.0)
    chosen = thin(points, reference, size)
    front = non_dominated(points)
    assert len(set(chosen)) == len(chosen) <= size
    assert all(front[index] for index in chosen)
    kept = hypervolume(points[chosen], reference)
    best = max(
        (hypervolume(points[list(subset)], reference) for subset in itertools.combinations(range(len(points)), size)),
        default=hypervolume(points, reference),
    )
    assert kept >= (1 - 1 / np.e) * best - 1e-9
    if size >= front.sum():
        assert kept == pytest.approx(hypervolume(points, reference))


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="NaN"):
        non_dominated([[1.0, float("nan")]])
    with pytest.raises(ValueError, match="shapes"):
        hypervolume([[1.0, 2.0]], [1.0, 2.0, 3.0])
