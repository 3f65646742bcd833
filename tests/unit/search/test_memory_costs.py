"""What the search expects of memory before and after something was measured."""

import pytest

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from profilers.types import Capabilities
from search.coordinator import needs_table
from search.estimator import branch_costs
from search.latency_model import LatencyModel
from search.latency_model import Measured
from search.memory_costs import StoredCosts
from search.prepared import Prepared
from search.requests import JobRequest
from tests.unit.search.guided_problem import ANATOMY
from tests.unit.search.guided_problem import Problem

REQUEST = JobRequest(model_id="m", dataset_id="d", objective="peak_memory")


def recipe(heads, width, bits):
    layer = LayerRecipe(
        attention=AttentionRecipe(heads=heads, bits=bits),
        feed_forward=FeedForwardRecipe(intermediate_size=width, bits=bits),
    )
    return Recipe(layers=(layer,) * ANATOMY.layers)


def test_the_dense_model_is_one_and_bits_and_widths_count():
    model = LatencyModel(StoredCosts(ANATOMY), ANATOMY)
    dense, int8, half = (
        model.predict(recipe(None, None, 32)).value,
        model.predict(recipe(None, None, 8)).value,
        model.predict(recipe(None, ANATOMY.intermediate_size[0] // 2, 32)).value,
    )
    assert dense == pytest.approx(1.0, rel=0.01)
    assert dense - int8 == pytest.approx(0.75 * (1 - StoredCosts(ANATOMY).fixed("f32")), rel=0.02)
    assert int8 < half < dense


def test_measured_memory_corrects_the_expectation():
    """A runtime that unpacks int8 weights to twice their size."""
    seen = [recipe(None, None, 8), recipe(2, None, 8), recipe(None, 64, 8), recipe(6, 768, 8)]
    plain = LatencyModel(StoredCosts(ANATOMY), ANATOMY)
    fixed = StoredCosts(ANATOMY).fixed("f32")
    truth = {known.digest: fixed + 2 * (plain.predict(known).value - fixed) for known in seen}
    observed = [Measured(known, truth[known.digest], known.digest) for known in seen[:3]]
    model = LatencyModel(StoredCosts(ANATOMY), ANATOMY, observed)
    errors = [abs(either.predict(seen[3]).value / truth[seen[3].digest] - 1) for either in (plain, model)]
    assert errors[1] < 0.04 < errors[0]


def test_times_are_not_asked_where_memory_counts():
    prepared = Prepared(
        anatomy=ANATOMY,
        capabilities=Capabilities(profiler="onnxruntime", available=True),
        latency_table=Problem().table(),
    )
    assert isinstance(branch_costs(REQUEST, prepared), StoredCosts)
    assert not needs_table(REQUEST)
    for objective in ("p50", "p99", "throughput"):
        request = REQUEST.model_copy(update={"objective": objective})
        assert branch_costs(request, prepared).measured
        assert needs_table(request)
