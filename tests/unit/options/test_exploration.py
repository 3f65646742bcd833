"""Exploration of a real model, and what the guided strategy does with it."""

import pytest
import torch

from compressors.anatomy import describe
from compressors.apply import apply_recipe
from compressors.calibration import Calibration
from compressors.network import EncoderNetwork
from compressors.options.branches import BranchLibrary
from compressors.options.database import OptionSet
from compressors.options.scoring import ScoringSet
from compressors.options.scoring import divergences
from compressors.torch_module import to_module
from profilers.types import Capabilities
from profilers.types import Workload
from search.branch_costs import CountedCosts
from search.branches import allowed_units
from search.latency_model import LatencyModel
from search.options import Explored
from search.options import OptionDatabase
from search.prepared import GraphDefaults
from search.requests import Goal
from search.requests import Space
from search.space import build_space
from search.strategies.guided_space import GuidedSpace
from search.study import StudyState
from tests.unit.search.guided_problem import Problem
from workers.operations.explore import PARTS
from workers.operations.explore import Exploration
from workers.operations.options import to_unit

RATIOS = (0.7, 0.5, 0.4)


@pytest.fixture(scope="module")
def exploration(network: EncoderNetwork, calibration: Calibration, examples, options: OptionSet) -> Exploration:
    anatomy = describe(network)
    database = OptionDatabase(units=tuple(to_unit(unit) for unit in options.units))
    capabilities = Capabilities(profiler="onnxruntime", available=True)
    space = build_space(anatomy, capabilities, Space(kinds=("heads", "ffn", "bits")), GraphDefaults())
    model = LatencyModel(CountedCosts(anatomy, Workload(sequence_length=32)), anatomy)
    solver = GuidedSpace(allowed_units(database, space), space, model)
    library = BranchLibrary(network, calibration, space.dense_recipe())
    return Exploration(library, ScoringSet.collect(examples[64:], PARTS), solver, model, seed=0)


def test_never_worse_than_the_solver_and_within_the_time(exploration: Exploration) -> None:
    for ratio, found in zip(RATIOS, exploration.run(RATIOS, 3.0), strict=True):
        assert found[0].divergence <= exploration.solve(ratio).divergence
        assert all(entry.ratio <= ratio * 1.001 for entry in found)


def test_divergence_is_that_of_the_model_that_the_recipe_describes(
    exploration: Exploration, network: EncoderNetwork, calibration: Calibration, examples
) -> None:
    entry = exploration.solve(0.25)
    floats = entry.recipe.model_dump(mode="json")
    for layer in floats["layers"]:
        layer["attention"]["bits"] = layer["feed_forward"]["bits"] = 32
    candidate = to_module(apply_recipe(network, calibration, type(entry.recipe).model_validate(floats)))
    dense = to_module(network)
    with torch.inference_mode():
        exact = [divergences(dense(**one), candidate(**one), classifier=True) for one in examples[64:]]
    assert entry.divergence == pytest.approx(float(torch.cat(exact).mean()), rel=0.1)  # but for the rounding of weights


def test_guided_tries_explored_recipes_first_and_only_near_the_goal() -> None:
    problem = Problem()
    study = StudyState("job", 0, Goal(), ())
    strategy = problem.strategy("guided")
    recipes = [proposal.recipe for proposal in strategy.ask(study, 3)]
    prepared = problem.prepared().model_copy(
        update={
            "explored": tuple(
                Explored(recipe=r, ratio=x, divergence=1e-3) for r, x in zip(recipes, (0.5, 0.4, 1e-4), strict=True)
            )
        }
    )
    again = type(strategy)(strategy._request, prepared, strategy._space)
    proposals = again.ask(study, 3)
    assert [proposal.recipe for proposal in proposals[:2]] == recipes[:2]
    assert proposals[2].sampler_state != {"origin": "explored"}
    assert len({proposal.recipe.digest for proposal in proposals}) == 3


def test_targets_are_where_the_solver_s_answers_diverge_so_much(exploration: Exploration) -> None:
    slowest, fastest = exploration.ratios((0.0, 1e9))
    curve = [exploration.solve(ratio).divergence for ratio in (0.8 * slowest, (slowest * fastest) ** 0.5)]
    found = exploration.ratios(curve)
    assert slowest > found[0] > found[1] > fastest
    near = [exploration.solve(ratio).divergence for ratio in found]
    assert all(level / 3 < divergence < level * 3 for level, divergence in zip(curve, near, strict=True))
