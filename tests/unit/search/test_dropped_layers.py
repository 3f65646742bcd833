"""Layers that go as a whole: at what the model without them loses, not at what their two branches lose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.recipe import LayerRecipe
from search.branch_costs import TableCosts
from search.branches import allowed_merges
from search.branches import allowed_units
from search.latency_model import LatencyModel
from search.menu import Menu
from search.options import Merge
from search.refine import offspring
from search.requests import Goal
from search.requests import Space
from search.solver import Block
from search.solver import total_time
from search.space import build_space
from search.spdy import WeightShape
from search.spdy import fit_weights
from search.spdy import unit_weights
from search.strategies.guided_space import GuidedSpace
from tests.unit.search.guided_problem import ANATOMY
from tests.unit.search.guided_problem import CAPABILITIES
from tests.unit.search.guided_problem import LAYERS
from tests.unit.search.guided_problem import Problem

DEEP = 2 * LAYERS
DEEP_ANATOMY = ANATOMY.model_copy(
    update={"layers": DEEP, "heads": ANATOMY.heads * 2, "intermediate_size": ANATOMY.intermediate_size * 2}
)
CHEAP = 7
"""The layer that nobody misses, though the model without either of its branches is useless."""


def deep_space(drops=True, min_layers=1, merges=(), kinds=("heads", "ffn", "depth", "bits"), **changes):
    """Twice the layers of the usual problem, whose normalisations take as long as half a narrow branch."""
    problem = Problem()
    units = problem.database().units
    later = [unit.model_copy(update={"layer": unit.layer + LAYERS}) for unit in units]
    deep = [dear(unit) if unit.layer == CHEAP else unit for unit in (*units, *later)]
    divergences = [2.0 if layer != CHEAP else 0.001 for layer in range(DEEP)]
    database = problem.database().model_copy(
        update={"units": tuple(deep), "drops": tuple(divergences) if drops else (), "merges": merges}
    )
    request = Space(kinds=kinds, ffn_step=128, min_layers=min_layers)
    space = build_space(DEEP_ANATOMY, CAPABILITIES, request, problem.prepared().graph_defaults)
    table = problem.table().model_copy(update={"fixed": {"f32": 0.28}, "layer": {"f32": 0.01}})
    model = LatencyModel(TableCosts(table, DEEP_ANATOMY), DEEP_ANATOMY)
    return GuidedSpace(
        allowed_units(database, space),
        space,
        model,
        merges=allowed_merges(database, space),
        drops=database.drops,
        **changes,
    )


def dear(unit):
    options = [option.model_copy(update={"divergence": 5 * option.error}) for option in unit.options]
    return unit.model_copy(update={"options": tuple(options)})


def gone(recipe):
    return [number for number, layer in enumerate(recipe.layers) if layer.removed]


def test_a_layer_goes_whose_drop_is_cheap_though_its_branches_are_dear():
    slowest = deep_space().reach("f32")[0]
    for measured, expected in ((True, [CHEAP]), (False, [])):
        space = deep_space(drops=measured)
        recipe = space.to_recipe(space.defaults(0.0) | {"target": 0.15})
        assert gone(recipe) == expected
        assert recipe.layers[CHEAP] == LayerRecipe(removed=True) or not measured
    assert slowest > 1.0


def test_what_a_dropped_layer_saves_is_spent_on_the_others():
    """Its normalisations' time included: the prediction of the whole recipe is the target, not less."""
    space = deep_space()
    costs = space.menu.costs()
    for ratio in (0.9, 0.7, 0.5):
        choice = space.solve(costs, ratio, "f32")
        recipe = space.recipe(choice, "f32")
        assert CHEAP in gone(recipe)
        predicted = space._model.predict(recipe).value
        assert predicted == pytest.approx(space._fixed_time("f32") + space.time(choice, "f32"), rel=1e-9)
        assert 0.97 * ratio < predicted <= ratio


def test_as_many_layers_stay_as_have_to():
    narrow, wide = deep_space(drops=False, min_layers=1), deep_space(drops=False, min_layers=5)
    for space, least in ((narrow, 1), (wide, 5)):
        fastest = space.reach("f32")[1]
        assert len(gone(space.to_recipe(space.defaults(1.0)))) == DEEP - least
        recipe = space.recipe(space.solve(space.menu.costs(), fastest, "f32"), "f32")
        assert space._model.predict(recipe).value == pytest.approx(fastest, rel=1e-9)
    assert narrow.reach("f32")[1] < wide.reach("f32")[1] - 4 * 0.01


def test_the_size_limit_is_kept_where_layers_go():
    space = deep_space(most_bytes=2e6)
    choice = space.solve(space.menu.costs(), 0.9, "f32")
    assert space.fits(choice)
    assert not space.fits(deep_space().solve(space.menu.costs(), 0.9, "f32"))
    assert gone(space.recipe(choice, "f32")) == [CHEAP]


def test_no_layer_goes_where_depth_is_not_searched():
    space = deep_space(kinds=("heads", "ffn", "bits"))
    assert not space.menu.drops
    assert not gone(space.to_recipe(space.defaults(1.0)))


def test_errors_of_a_choice_are_what_it_costs():
    menu = deep_space().menu
    rng = np.random.default_rng(0)
    weights = np.exp(rng.normal(0.0, 1.0, len(menu.parts)))
    costs = menu.costs(weights)
    for _ in range(20):
        choice = [int(rng.integers(len(unit.options))) for unit in menu.units]
        for drop in menu.drops:
            if rng.random() < 0.3:
                choice[drop.first : drop.first + 2] = drop.removed
        assert menu.cost(costs, choice) == pytest.approx(weights @ menu.errors(choice))
    assert len(menu.parts) == len(menu.layers) == 3 * DEEP


def test_without_measured_drops_a_layer_costs_what_its_branches_do():
    units = deep_space().menu.units
    (one, *_), (other, *_) = Menu(units).drops, Menu(units, [0.5] * DEEP).drops
    assert one.divergence == sum(unit.divergence[option] for unit, option in zip(units[:2], one.removed, strict=True))
    assert other.divergence == 0.5
    assert one.error == other.error == 2.0


def test_trials_without_a_layer_teach_what_dropping_it_costs():
    """And nothing about its branches, nor about layers that no trial lacks."""
    menu, rng = deep_space().menu, np.random.default_rng(1)
    truth = np.ones(len(menu.parts))
    number = len(menu.units) + CHEAP
    truth[number] = 30.0
    (drop,) = [drop for drop in menu.drops if drop.layer == CHEAP]
    rows = []
    for trial in range(20):
        choice = [int(rng.integers(len(unit.options) - 1)) + 1 for unit in menu.units]
        if trial % 2:
            choice[drop.first : drop.first + 2] = drop.removed
        rows.append(menu.errors(choice))
    rows = np.array(rows)
    weights = fit_weights(rows, rows @ truth, np.ones(len(truth)), prior_weight=0.01)
    scale = weights[-1]  # of parts that no trial has anything of
    assert weights[number] == pytest.approx(30.0, rel=0.5)
    others = np.delete(weights[len(menu.units) :], CHEAP)
    assert others == pytest.approx(np.full(DEEP - 1, scale))
    assert 0.3 < scale < 3


def test_weights_of_layers_lie_between_those_of_their_branches():
    parts, depths = ("attention", "feed_forward", "layer"), (0.5, 0.5, 0.5)
    attention, feed_forward, layer = unit_weights(WeightShape(attention=1.0), parts, depths)
    assert layer == pytest.approx(np.sqrt(attention * feed_forward))


@given(st.integers(0, 10**6))
def test_moves_with_layers_keep_the_budget_and_what_has_to_stay(seed):
    rng = np.random.default_rng(seed)
    times = [np.append(np.sort(rng.random(5))[::-1], 0.0) for _ in range(8)]
    blocks = []
    for first in range(0, 8, 2):
        times[first] += 0.2
        blocks.append(Block(first, (5, 5), 1.0, 0.2))
    start = rng.integers(0, 6, 8).tolist()
    start[:2] = [5, 5]
    budget = total_time(times, start, blocks)
    children = offspring(start, times, budget, 16, rng, blocks, least_kept=2)
    for child in children:
        assert total_time(times, child, blocks) <= budget
        assert sum(not block.is_gone(child) for block in blocks) >= 2


def test_layers_that_are_gone_and_layers_that_are_there_change_places():
    space, rng = deep_space(), np.random.default_rng(0)
    start = space.solve(space.menu.costs(), 0.6, "f32")
    (before,) = gone(space.recipe(start, "f32"))
    children = space.neighbours(start, space.menu.costs(), "f32", 64, rng)
    swapped = [
        child for child in children if len(missing := gone(space.recipe(child, "f32"))) == 1 and missing != [before]
    ]
    assert swapped
    for child in children:
        assert space.time(child, "f32") <= space.time(start, "f32") + 1e-9


def test_merging_competes_with_dropping_in_solutions():
    near = Merge(layer=2, merged=1, divergence=0.002, dropped=2.0)
    far = Merge(layer=8, merged=1, divergence=1.5, dropped=2.0)
    plain, merging = deep_space(), deep_space(merges=(near, far))
    costs = plain.menu.costs()
    alone = plain.solve_merged(costs, 0.6, "f32")
    together = merging.solve_merged(costs, 0.6, "f32")
    assert all(layer.merged == 0 for layer in alone.layers)
    assert [number for number, layer in enumerate(together.layers) if layer.merged] == [2]
    assert gone(together) == [3, CHEAP]
    assert merging._model.predict(together).value <= 0.6


def test_the_search_drops_the_layer_that_nobody_misses():
    """Whatever the options say of its branches; the truth says that they are dear only one by one."""

    class Shallow(Problem):
        def drop(self, recipe):
            layers = list(recipe.layers)
            harmless = layers[3].removed
            if harmless:
                layers[3] = LayerRecipe()
            return super().drop(recipe.model_copy(update={"layers": tuple(layers)})) + 0.0005 * harmless

    problem = Shallow()
    divergences = tuple(0.001 if layer == 3 else 1.0 for layer in range(LAYERS))
    database = problem.database().model_copy(update={"drops": divergences})
    study = problem.search(problem.strategy("guided", options=database), 16, goal=Goal(max_drop=0.03))
    best = min((trial for trial in study.trials if trial.drop <= 0.03), key=lambda trial: trial.ratio)
    assert 3 in gone(best.recipe)
    study = problem.search(problem.strategy("guided"), 16, goal=Goal(max_drop=0.03))
    blind = min((trial for trial in study.trials if trial.drop <= 0.03), key=lambda trial: trial.ratio)
    assert best.ratio < 0.97 * blind.ratio
