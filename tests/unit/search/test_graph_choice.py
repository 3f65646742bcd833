"""The best graph is chosen from measured ratios; settings interact, intervals overlap, races fail."""

from collections.abc import Callable
from collections.abc import Mapping

import numpy as np
import pytest

from compressors.export.defaults import default_graph
from compressors.export.graph_choices import FIXED_SHAPE
from compressors.export.graph_choices import alternatives
from compressors.export.graph_choices import combine
from compressors.recipe import GraphRecipe
from profilers.statistics import ratio_estimate
from profilers.types import Estimate
from search.graph_choice import TOGETHER
from search.graph_choice import GraphChoice
from search.graph_choice import Race
from search.graph_choice import choose_graph
from search.graph_choice import describe
from search.graph_choice import fixed_shape_note

START = default_graph("onnxruntime", {8}).model_copy(update={"merged_keys": False})


def device(seconds: Callable[[GraphRecipe], float], noise: float = 0.01, blocks: int = 40, seed: int = 0) -> Race:
    """A device with known speeds, measured with the protocol's own estimator on paired, noisy blocks."""
    rng = np.random.default_rng(seed)

    def race(reference: GraphRecipe, graphs: Mapping[str, GraphRecipe]) -> dict[str, Estimate]:
        return {
            name: ratio_estimate(np.log(seconds(graph) / seconds(reference)) + noise * rng.standard_normal(blocks))
            for name, graph in graphs.items()
        }

    return race


def best(seconds: Callable[[GraphRecipe], float]) -> GraphChoice:
    return choose_graph(START, alternatives(START), device(seconds))


def test_settings_that_help_are_combined_and_others_left_alone() -> None:
    def seconds(graph: GraphRecipe) -> float:
        return (1 - 0.05 * graph.packed_qkv) * (1 - 0.04 * graph.merged_keys) * (1 + 0.03 * (graph.gelu == "erf"))

    found = best(seconds)
    assert found.graph == START.model_copy(update={"packed_qkv": True, "merged_keys": True})
    assert found.changes == ("packed qkv", "merged keys")
    assert found.gain == pytest.approx(1 - 0.95 * 0.96, abs=0.01)


def test_nothing_changes_without_a_difference_or_without_a_measurement() -> None:
    kept = best(lambda _: 1.0)
    assert kept.graph == START
    assert len(kept.ratios) == len(alternatives(START))
    unmeasured = choose_graph(START, alternatives(START), lambda *_: {})
    assert (unmeasured.graph, unmeasured.ratios) == (START, {})
    assert "could be timed" in describe({"graph": unmeasured})


def test_a_fixed_shape_is_timed_and_never_chosen() -> None:
    found = choose_graph(START, alternatives(START), device(lambda graph: 0.9 if graph.static_shape else 1.0, noise=0))
    assert found.graph == START
    assert found.fixed_shape is not None
    assert found.fixed_shape.value == pytest.approx(0.9, abs=0.01)
    assert FIXED_SHAPE not in found.ratios
    assert "a fixed shape takes 0.900 x" in describe({"graph": found})
    assert "took 0.900 x" in (fixed_shape_note(found) or "")
    assert fixed_shape_note(GraphChoice(graph=START)) is None


def test_luck_in_one_race_is_no_reason() -> None:
    """Among many settings without effect some are outside their intervals; they are not chosen for it."""
    found = [choose_graph(START, alternatives(START), device(lambda _: 1.0, seed=seed)) for seed in range(60)]
    lucky = sum(any(ratio.high < 1 for ratio in choice.ratios.values()) for choice in found)
    assert lucky >= 5, "the test has nothing to show"
    assert sum(choice.graph != START for choice in found) <= 2


def test_settings_that_help_alone_only_are_not_combined() -> None:
    def seconds(graph: GraphRecipe) -> float:
        both = graph.packed_qkv and graph.merged_keys
        return 1.1 if both else 1 - 0.05 * graph.packed_qkv - 0.04 * graph.merged_keys

    found = best(seconds)
    assert found.graph == START.model_copy(update={"packed_qkv": True})
    assert found.confirmed[TOGETHER].low > 1
    assert "packed qkv saves 5" in describe({"graph": found})


def test_the_better_of_two_contradicting_settings_wins() -> None:
    def seconds(graph: GraphRecipe) -> float:
        return {"standard": 0.8, "contrib": 0.9 if graph.layout == "batch_first" else 1.0}[graph.operators]

    assert best(seconds).graph.operators == "standard"
    kept = combine(START, [START.model_copy(update={"gelu": "erf"}), START.model_copy(update={"gelu": "tanh"})])
    assert kept.gelu == "erf"


def test_alternatives_differ_and_keep_to_the_operators_of_the_device() -> None:
    portable = default_graph("openvino", {8})
    assert {graph.operators for graph in alternatives(portable).values()} == {"standard"}
    for start in (START, portable):
        found = list(alternatives(start).values())
        assert start not in found
        assert all(found.count(graph) == 1 for graph in found)
        assert "tanh" not in {graph.gelu for graph in found}
        assert "tanh" in {graph.gelu for graph in alternatives(start, rounded=True).values()}
