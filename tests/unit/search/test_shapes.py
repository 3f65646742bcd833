"""Which shapes are proposed for recovery training, for models of any depth."""

from itertools import pairwise

import pytest

from search.options import Explored
from search.options import OptionDatabase
from search.requests import JobRequest
from search.shapes import choose_shapes
from search.space import build_space
from search.strategies.guided import GuidedStrategy
from search.study import StudyState
from search.study import TrialRecord
from tests.unit.search.synthetic import ANATOMY
from tests.unit.search.synthetic import HEADS
from tests.unit.search.synthetic import WIDTH
from tests.unit.search.synthetic import option_database
from tests.unit.search.synthetic import prepared


def shapes_of(layers: int):
    request = JobRequest(model_id="m", dataset_id="d", space={"head_step": 1, "ffn_step": 1})
    sizes = {"layers": layers, "heads": (4,) * layers, "intermediate_size": (8,) * layers}
    known = prepared().model_copy(update={"anatomy": ANATOMY.model_copy(update=sizes)})
    int8 = TrialRecord("int8", 0, "int8", "baseline", "done", drop=0.004, ratio=0.45)
    return choose_shapes(request, known, StudyState("job", 0, request.goal, (int8,), 1.0))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_with_no_layer_to_spare_is_narrowed_only(layers):
    shapes = shapes_of(layers)
    assert len(shapes) >= 2
    assert {shape.origin for shape in shapes} == {"uniform"}


def test_deeper_models_are_cut_evenly_between_first_and_last_layer():
    shallow = [shape for shape in shapes_of(6) if shape.origin == "depth"]
    assert shallow
    for shape in shallow:
        kept = [index for index, layer in enumerate(shape.recipe.layers) if not layer.removed]
        assert {0, 5} <= set(kept)
        assert 2 <= len(kept) < 6


IMPORTANCE = {"attention": (0.2, 1.0, 0.1), "feed_forward": (1.0, 0.1, 0.3)}


def gradual_job(strategy: str):
    """Request, preparation and study of a job whose model has branches of different importance."""
    units = [
        unit.model_copy(
            update={
                "options": tuple(
                    option.model_copy(update={"error": option.error * IMPORTANCE[unit.branch][unit.layer]})
                    for option in unit.options
                )
            }
        )
        for unit in option_database().units
    ]
    known = prepared().model_copy(update={"options": OptionDatabase(units=tuple(units))})
    asked = {"strategy": strategy, "space": {"head_step": 1, "ffn_step": 1}, "goal": {"max_drop": 0.01}}
    request = JobRequest(model_id="m", dataset_id="d", recover={"seconds": 400, "mode": "gradual"}, **asked)
    int8 = TrialRecord("int8", 0, "int8", "baseline", "done", drop=0.004, ratio=0.45)
    return request, known, StudyState("job", 0, request.goal, (int8,), 1.0)


def sizes_of(recipe):
    """Heads and channels of every layer, those of attention and feed-forward apart."""
    heads = [HEADS if layer.attention.heads is None else layer.attention.heads for layer in recipe.layers]
    widths = [layer.feed_forward.intermediate_size for layer in recipe.layers]
    return heads, [WIDTH if width is None else width for width in widths]


def test_a_gradual_family_is_what_the_solver_says_for_each_step_of_the_ramp_within_the_step_before():
    shapes = choose_shapes(*gradual_job("guided"))
    assert len(shapes) >= 3
    assert {shape.origin for shape in shapes} == {"gradual"}
    sizes = [sizes_of(shape.recipe) for shape in shapes]
    for before, after in pairwise(sizes):
        assert before != after
        for old, new in zip((*before[0], *before[1]), (*after[0], *after[1]), strict=True):
            assert 0 < new <= old
    assert all(heads[1] == max(heads) and widths[0] == max(widths) for heads, widths in sizes), "what counts is kept"
    assert any(heads[1] > min(heads) for heads, _ in sizes), "not uniform"
    ratios = [shape.ratio for shape in shapes]
    assert ratios == sorted(ratios, reverse=True)
    steps = [before - after for before, after in pairwise(ratios)]
    assert steps[0] > steps[-1], "much goes at first, little at the end"


def test_without_a_solver_the_gradual_family_is_uniform():
    shapes = choose_shapes(*gradual_job("direct"))
    assert len(shapes) >= 3
    assert all(len(set(part)) == 1 for shape in shapes for part in sizes_of(shape.recipe))


def test_a_nested_shape_is_never_wider_than_the_one_before_though_there_is_time_for_more():
    request, known, study = gradual_job("guided")
    space = build_space(known.anatomy, known.capabilities, request.space, known.graph_defaults)
    strategy = GuidedStrategy(request, known, space)
    first, second = strategy.solve_nested(study, [0.35, 0.9])
    assert sizes_of(first) == sizes_of(second)
    assert sizes_of(strategy.solve_nested(study, [0.9])[0]) != sizes_of(first)


def test_combinations_that_were_scored_as_a_whole_come_before_what_the_solver_expects_of_others():
    request, known, study = gradual_job("guided")
    request = request.model_copy(update={"recover": request.recover.model_copy(update={"mode": "race"})})
    solved = [shape for shape in choose_shapes(request, known, study) if shape.origin == "solver"]
    layers = solved[1].recipe.layers
    other = solved[1].recipe.model_copy(update={"layers": (layers[-1], *layers[1:-1], layers[0])})
    explored = (Explored(recipe=other, ratio=solved[1].ratio, divergence=0.02),)
    shapes = choose_shapes(request, known.model_copy(update={"explored": explored}), study)
    (found,) = [shape for shape in shapes if shape.origin == "explored"]
    assert found.recipe.layers == other.layers
    assert found.family == solved[0].family
