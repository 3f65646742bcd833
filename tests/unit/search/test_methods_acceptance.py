"""The search machinery against brute force, and predicted latencies against the times that they predict."""

import itertools
import logging

import numpy as np
import pytest

from compressors.options.explore import Explorer
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from search.branch_costs import TableCosts
from search.canonical import canonicalise
from search.latency_model import LatencyModel
from search.latency_model import Measured
from search.refine import offspring
from search.solver import BudgetTable
from search.solver import total
from search.spdy import fit_weights
from tests.unit.options.test_table import ANATOMY
from tests.unit.options.test_table import measured_table
from tests.unit.options.test_table import random_recipe
from tests.unit.options.test_table import true_time

UNITS, LEVELS = 6, 5


@pytest.mark.parametrize("seed", range(8))
def test_search_over_unit_weights_finds_the_optimum_of_an_additive_loss(seed):
    """SPDY (Frantar and Alistarh 2022): the solver is asked with many weights, and answers are scored once."""
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.random(LEVELS))[::-1] for _ in range(UNITS)]
    errors = [np.append(0.0, np.sort(rng.random(LEVELS - 1))) for _ in range(UNITS)]
    truth = np.exp(rng.normal(0.0, 1.5, UNITS))
    costs = [weight * error for weight, error in zip(truth, errors, strict=True)]
    budget = 0.4 * sum(unit.max() for unit in times)
    choices = itertools.product(range(LEVELS), repeat=UNITS)
    best = min(total(costs, choice) for choice in choices if total(times, choice) <= budget)
    scores = {}

    def score(choice, parts):
        scores[choice] = total(costs, choice)
        return scores[choice]

    def solve(weights):
        return BudgetTable(times, [w * e for w, e in zip(weights, errors, strict=True)], budget).solve(budget)

    def children(parents):
        seen = np.array([[errors[unit][level] for unit, level in enumerate(choice)] for choice in scores])
        learnt = fit_weights(seen, np.array(list(scores.values())), np.ones(UNITS), prior_weight=0.01)
        yield from (solve(learnt * np.exp(rng.normal(0.0, 0.1, UNITS))) for _ in range(8))
        for parent in parents:
            yield from offspring(parent, times, budget, 8, rng)

    explorer = Explorer(score, stages=1, expired=lambda: False)
    starts = [solve(np.ones(UNITS)), *(solve(np.exp(rng.normal(0.0, 1.0, UNITS))) for _ in range(40))]
    found, value = explorer.search(starts, children)[0]
    logging.getLogger(__name__).info("hit rate %.2f of %d", explorer.hit_rate, explorer.asked)
    assert total(times, found) <= budget
    assert value == pytest.approx(best, rel=1e-9)
    assert explorer.hit_rate > 0.3
    assert explorer.evaluations == len(scores) <= (1 - explorer.hit_rate) * explorer.asked + 1e-6


def test_dense_and_smallest_models_are_predicted_within_two_percent():
    """Once both were measured, among others: then the fitted model must give them back."""
    costs, generator = TableCosts(measured_table(), ANATOMY), np.random.default_rng(3)
    smallest = LayerRecipe(
        attention=AttentionRecipe(heads=1, bits=8), feed_forward=FeedForwardRecipe(intermediate_size=64, bits=8)
    )
    ends = [canonicalise(Recipe.dense(6), ANATOMY), canonicalise(Recipe(layers=(smallest,) * 6), ANATOMY)]
    for others in (0, 4):
        known = ends + [random_recipe(generator) for _ in range(others)]
        seen = [Measured(recipe, true_time(recipe), recipe.digest) for recipe in known]
        model = LatencyModel(costs, ANATOMY, seen)
        for recipe in ends:
            assert model.predict(recipe).value == pytest.approx(true_time(recipe), rel=0.02), others
