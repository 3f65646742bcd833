import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profilers.statistics import combine_processes
from profilers.statistics import half_width
from profilers.statistics import looks
from profilers.statistics import median_interval
from profilers.statistics import ratio_estimate
from profilers.statistics import student_quantile
from profilers.types import Estimate


def independent(rng, n):
    return rng.standard_normal(n)


def heavy_tailed(rng, n):
    return rng.standard_t(2, n)


def correlated(rng, n):
    noise = rng.standard_normal(n + 20)
    for i in range(1, len(noise)):
        noise[i] += 0.3 * noise[i - 1]
    return noise[20:]


@pytest.mark.parametrize("series", [independent, heavy_tailed, correlated])
@pytest.mark.parametrize("count", [12, 20, 68])
def test_interval_of_the_median_covers(series, count):
    rng = np.random.default_rng(3)
    repeats = 150
    covered = 0
    for seed in range(repeats):
        _, low, high = median_interval(series(rng, count), seed)
        covered += low <= 0 <= high
    assert 0.90 <= covered / repeats <= 0.995


def test_interval_shrinks_with_the_square_root_of_the_blocks():
    rng = np.random.default_rng(0)
    widths = []
    for count in (50, 800):
        _, low, high = median_interval(rng.standard_normal(count))
        widths.append(high - low)
    assert 2.5 < widths[0] / widths[1] < 6.5


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=60), st.floats(-0.5, 0.5))
def test_interval_moves_with_the_values(values, shift):
    array = np.array(values)
    middle, low, high = median_interval(array, seed=1)
    assert low <= middle <= high
    moved = median_interval(array + shift, seed=1)
    assert np.allclose(moved, np.array([middle, low, high]) + shift, atol=1e-9)


def test_one_value_has_no_interval():
    with pytest.raises(ValueError, match="two values"):
        median_interval(np.array([0.1]))


def test_ratio_estimate_exponentiates():
    estimate = ratio_estimate(np.log(np.full(30, 0.25)))
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((0.25, 0.25, 0.25))


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 12.706), (2, 4.3027), (3, 3.1824), (4, 2.7764), (5, 2.5706), (8, 2.3060), (20, 2.0860), (100, 1.9840)],
)
def test_student_quantile_matches_the_tables(degrees, expected):
    assert student_quantile(0.975, degrees) == pytest.approx(expected, rel=2e-3)


def test_student_quantile_falls_with_the_degrees():
    values = [student_quantile(0.975, degrees) for degrees in np.arange(1, 30, 0.25)]
    assert all(first > second for first, second in itertools.pairwise(values))


def test_looks_grow_geometrically():
    assert list(itertools.islice(looks(20), 7)) == [20, 30, 45, 68, 101, 152, 228]


def estimates(middles, width=0.002):
    return [Estimate(value=m, low=m * np.exp(-width), high=m * np.exp(width)) for m in middles]


def test_combining_includes_the_variance_between_processes():
    steady, shaky = estimates([0.5, 0.5, 0.5]), estimates([0.45, 0.5, 0.55])
    alone = [combine_processes([row])[0] for row in (steady, shaky)]
    assert half_width(alone[0]) == pytest.approx(0.002 / np.sqrt(3))
    assert half_width(alone[1]) > 0.2
    assert alone[1].low < 0.45


def test_candidates_of_the_same_processes_share_what_is_known_of_the_variance():
    """Three equal numbers by luck do not make a candidate certain, three unlike ones do not make it hopeless."""
    rows = [estimates(np.exp(np.random.default_rng(i).normal(0, 0.02, 3))) for i in range(8)]
    together = [half_width(e) for e in combine_processes(rows)]
    alone = [half_width(combine_processes([row])[0]) for row in rows]
    assert max(together) < max(alone)
    assert min(together) > min(alone)


def test_combined_intervals_cover():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        rows = [estimates(np.exp(rng.normal(0, 0.03, 3))) for _ in range(5)]
        first = combine_processes(rows)[0]
        covered += first.low <= 1 <= first.high
    assert 0.91 <= covered / 300 <= 0.99


def test_combining_needs_two_processes():
    with pytest.raises(ValueError, match="two processes"):
        combine_processes([estimates([0.5])])
