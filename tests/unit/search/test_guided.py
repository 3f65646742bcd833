import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressors.recipe import GraphRecipe
from compressors.recipe import Recipe
from compressors.validation import validate_recipe
from infra.errors import InfeasibleGoalError
from infra.errors import InvalidInputError
from search.branch_costs import TableCosts
from search.branches import allowed_merges
from search.branches import allowed_units
from search.estimator import latency_model
from search.latency_model import LatencyModel
from search.options import Explored
from search.options import Merge
from search.prepared import GraphDefaults
from search.refine import LEAST_USE
from search.refine import MOST_CHANGES
from search.refine import offspring
from search.requests import Goal
from search.requests import JobRequest
from search.requests import Space
from search.solver import BudgetTable
from search.solver import total
from search.space import build_space
from search.spdy import WeightShape
from search.spdy import fit_weights
from search.spdy import unit_weights
from search.strategies import proposer
from search.strategies.guided import MOST_REPAIRS
from search.strategies.guided import PRIOR_WEIGHT
from search.strategies.guided import REPAIR_AFTER
from search.strategies.guided_space import GuidedSpace
from search.strategies.targets import MOST_LOSS
from search.strategies.targets import spread_target
from search.study import StudyState
from tests.unit.search.guided_problem import ANATOMY
from tests.unit.search.guided_problem import CAPABILITIES
from tests.unit.search.guided_problem import HEADS
from tests.unit.search.guided_problem import WIDTH
from tests.unit.search.guided_problem import Problem
from tests.unit.search.guided_problem import front_volume


@pytest.fixture(autouse=True)
def forget():
    proposer._kept.clear()


def test_twenty_guided_trials_beat_many_direct_ones():
    problem = Problem()
    guided = problem.search(problem.strategy("guided"), 20)
    direct = problem.search(problem.strategy("direct"), 80, first=problem.presets())
    assert front_volume(guided) > front_volume(direct)


def test_guided_improves_on_its_own_first_spread():
    problem = Problem(seed=1)
    study = problem.search(problem.strategy("guided"), 60)
    assert front_volume(study) > 1.02 * front_volume(study, 6)
    origins = {trial.sampler_state.get("origin", "optuna") for trial in study.trials}
    assert origins == {"spread", "surrogate", "refine", "probe", "optuna", "repair", "format"}


def test_no_quick_repair_where_a_better_one_follows():
    problem = Problem(seed=4)
    study = problem.search(problem.strategy("guided", repair_share=0.5), 40, goal=Goal(max_drop=0.03))
    assert all(trial.recipe.repair == "none" for trial in study.trials)


def test_the_best_models_are_tried_repaired_late():
    problem = Problem(seed=4)
    study = problem.search(problem.strategy("guided"), 40, goal=Goal(max_drop=0.03))
    repaired = [trial for trial in study.trials if trial.recipe.repair == "sequential"]
    assert 1 <= len(repaired) <= MOST_REPAIRS + 1  # two are asked for at a time
    assert all(trial.number >= REPAIR_AFTER * 40 for trial in repaired)
    plain = [trial.recipe.model_copy(update={"repair": "none"}).digest for trial in repaired]
    assert set(plain) <= {trial.digest for trial in study.trials}


def test_goal_is_approached_from_both_sides():
    problem = Problem(seed=2)
    goal = Goal(max_drop=0.03)
    study = problem.search(problem.strategy("guided"), 40, goal=goal)
    spread = min(t.ratio for t in study.trials[:6] if t.drop <= 0.03)
    best = min(t.ratio for t in study.trials if t.drop <= 0.03)
    assert best < 0.97 * spread
    late = [t.drop for t in study.trials[20:]]
    assert np.median(np.abs(np.array(late) - 0.03)) < 0.02


def test_latency_goal_is_met_and_used():
    problem = Problem(seed=3)
    study = problem.search(problem.strategy("guided"), 30, goal=Goal(max_latency_ms=6.0))
    within = [t for t in study.trials if 20 * t.ratio <= 6.0]
    best = min(within, key=lambda t: t.drop)
    assert 20 * best.ratio > 5.4
    assert best.drop <= min(t.drop for t in study.trials[:6] if 20 * t.ratio <= 6.0)


@pytest.mark.parametrize("goal", [Goal(), Goal(max_drop=0.03)])
def test_a_resumed_study_proposes_the_same_and_nothing_twice(goal):
    problem = Problem()
    study = StudyState(job_id="job", seed=5, goal=goal, trials=())
    for turn in range(12):
        study = replace(study, progress=turn / 12)
        warm = problem.strategy().ask(study, 2)
        proposer._kept.clear()
        cold = problem.strategy().ask(study, 2)
        assert warm == cold
        number = len(study.trials)
        running = problem.record(number, warm[0], outcome="running")
        study = replace(study, trials=(*study.trials, running))
        more = problem.strategy().ask(study, 2)
        assert warm[0].recipe.digest not in {p.recipe.digest for p in more}
        done = [problem.finish(running), *(problem.record(number + 1 + i, p) for i, p in enumerate(more))]
        study = replace(study, trials=(*study.trials[:-1], *done))
    digests = [t.digest for t in study.trials]
    assert len(digests) == len(set(digests)) == 36


def test_without_divergences_errors_steer():
    problem = Problem()
    study = problem.search(problem.strategy("guided", options=problem.database(divergences=False)), 16)
    assert len(study.digests) == 16


def test_guided_needs_its_database():
    problem = Problem()
    with pytest.raises(InvalidInputError, match="option database"):
        problem.strategy("guided", options=None)


def test_latency_model_learns_what_the_table_got_wrong():
    problem = Problem()
    prepared, request = problem.prepared(), JobRequest(model_id="m", dataset_id="d")
    study = problem.search(problem.strategy("random"), 40, at_a_time=5)
    table_only = LatencyModel(TableCosts(problem.table(), ANATOMY), ANATOMY)
    fitted = latency_model(request, prepared, study.trials[:20])
    held_out = study.trials[20:]

    def error(model):
        return np.median([abs(model.predict(t.recipe).value / t.ratio - 1) for t in held_out])

    assert error(table_only) > 0.04
    assert error(fitted) < 0.01
    inside = [fitted.predict(t.recipe).low <= t.ratio <= fitted.predict(t.recipe).high for t in held_out]
    assert np.mean(inside) >= 0.9


@pytest.mark.parametrize("observed", [0, 1, 3, 8])
def test_latency_model_promises_no_more_than_few_observations_allow(observed):
    problem = Problem()
    trials = problem.search(problem.strategy("random"), 40, at_a_time=5).trials
    model = LatencyModel(TableCosts(problem.table(), ANATOMY), ANATOMY, trials[:observed])
    predicted = [(model.predict(trial.recipe), trial.ratio) for trial in trials[observed:]]
    assert np.mean([estimate.low <= ratio <= estimate.high for estimate, ratio in predicted]) >= 0.9


def test_latency_model_promises_no_more_than_the_table_does():
    problem = Problem()
    trials = problem.search(problem.strategy("random"), 40, at_a_time=5).trials
    disturbed = TableCosts(problem.table().model_copy(update={"relative_error": 0.3}), ANATOMY)
    for observed in (0, 40):
        found = LatencyModel(disturbed, ANATOMY, trials[:observed]).predict(trials[0].recipe)
        assert found.high == pytest.approx(1.3 * found.value)
        assert found.low == pytest.approx(0.7 * found.value)


def test_counted_operations_order_candidates_before_anything_is_measured():
    problem = Problem()
    prepared, request = problem.prepared(latency_table=None), JobRequest(model_id="m", dataset_id="d")
    study = problem.search(problem.strategy("random"), 30, at_a_time=5)
    model = latency_model(request, prepared, ())
    predicted = [model.predict(t.recipe).value for t in study.trials]
    measured = [t.ratio for t in study.trials]
    ranks = np.corrcoef(np.argsort(np.argsort(predicted)), np.argsort(np.argsort(measured)))[0, 1]
    assert ranks > 0.85
    whole = Recipe.dense(6).model_copy(update={"graph": GraphRecipe(first_token_head=False)})
    assert model.predict(whole).value == pytest.approx(1.0, rel=1e-6)


def test_learnt_weights_find_the_optimum_of_an_additive_loss():
    """SPDY's aim, with weights learnt from evaluations in place of a search over random ones."""
    rng = np.random.default_rng(0)
    units, levels = 4, 5
    times = [np.sort(rng.random(levels))[::-1] for _ in range(units)]
    errors = [np.linspace(0, 1, levels) ** 2 for _ in range(units)]
    truth = np.array([5.0, 0.2, 1.0, 0.05])
    tried = [rng.integers(0, levels, units) for _ in range(16)]
    seen = np.array([[errors[u][choice[u]] for u in range(units)] for choice in tried])
    weights = fit_weights(seen, seen @ truth, np.ones(units), prior_weight=0.01)
    assert weights == pytest.approx(truth, rel=0.15)
    everything = list(itertools.product(range(levels), repeat=units))
    for budget in (1.0, 1.5, 2.0):
        found = BudgetTable(times, [w * e for w, e in zip(weights, errors, strict=True)], budget).solve(budget)
        costs = [w * e for w, e in zip(truth, errors, strict=True)]
        best = min(total(costs, c) for c in everything if total(times, c) <= budget - 4 * budget / 4000)
        assert total(costs, found) <= best * 1.05 + 1e-9
        assert total(times, found) <= budget


def test_unit_weights_say_what_they_mean():
    branches, depths = ["attention", "feed_forward"] * 3, [0, 0, 0.5, 0.5, 1, 1]
    assert unit_weights(WeightShape(), branches, depths) == pytest.approx(np.ones(6))
    assert np.prod(unit_weights(WeightShape(1.0, 0.5, -0.5), branches, depths)) == pytest.approx(1.0)
    more_attention = unit_weights(WeightShape(attention=1.0), branches, depths)
    assert more_attention[0] / more_attention[1] == pytest.approx(np.e)
    late = unit_weights(WeightShape(slope=1.0), branches, depths)
    assert late[4] / late[0] == pytest.approx(np.e)


@given(st.integers(0, 10**6))
def test_moves_keep_the_budget_and_stay_near(seed):
    rng = np.random.default_rng(seed)
    times = [np.sort(rng.random(8))[::-1] for _ in range(8)]
    start = rng.integers(0, 8, 8).tolist()
    budget = total(times, start)
    children = offspring(start, times, budget, 8, rng)
    assert len(set(children)) == len(children)
    for child in children:
        assert child != tuple(start)
        assert LEAST_USE * budget <= total(times, child) <= budget
        assert sum(a != b for a, b in zip(child, start, strict=True)) <= MOST_CHANGES


def test_spread_targets_cover_the_front_at_every_count():
    for count in (3, 7, 15):
        points = sorted(spread_target(i) for i in range(count))
        assert max(np.diff([0, *points, 1])) <= 1 / (count + 1) + 1e-9


def test_layers_are_merged_where_that_beats_dropping_them():
    problem = Problem()
    merges = (
        Merge(layer=1, merged=2, divergence=0.001, dropped=0.1),
        Merge(layer=3, merged=1, divergence=0.2, dropped=0.1),
    )
    database = problem.database().model_copy(update={"merges": merges})
    request = Space(kinds=("heads", "ffn", "depth", "bits"), ffn_step=128)
    space = build_space(ANATOMY, CAPABILITIES, request, problem.prepared().graph_defaults)
    offered = allowed_merges(database, space)
    assert offered == merges[:1]
    guided = GuidedSpace(
        allowed_units(database, space),
        space,
        LatencyModel(TableCosts(problem.table(), ANATOMY), ANATOMY),
        merges=offered,
    )
    params = guided.defaults(0.4)
    assert params["merge"] is None
    assert all(layer.merged == 0 for layer in guided.to_recipe(params).layers)
    recipe = guided.to_recipe(params | {"merge": 0})
    assert [layer.merged for layer in recipe.layers] == [0, 2, 0, 0, 0, 0]
    assert [layer.removed for layer in recipe.layers][1:4] == [False, True, True]
    assert (recipe.layers[1].attention.heads, recipe.layers[1].feed_forward.intermediate_size) == (None, None)
    validate_recipe(recipe, ANATOMY)
    assert guided.locate(recipe) is None  # what it cost says nothing about the options of its layers
    assert not allowed_merges(database, replace(space, min_layers=5))
    assert not allowed_merges(database, replace(space, kinds=("heads", "ffn", "bits")))
    study = problem.search(problem.strategy("guided", options=database), 40)
    assert any(layer.merged for trial in study.trials for layer in trial.recipe.layers)


def test_the_fastest_useful_model_is_the_fastest_whose_cost_is_allowed():
    problem = Problem()
    space = build_space(
        ANATOMY, CAPABILITIES, Space(kinds=("heads", "ffn", "bits"), ffn_step=128), problem.prepared().graph_defaults
    )
    model = LatencyModel(TableCosts(problem.table(), ANATOMY), ANATOMY)
    guided = GuidedSpace(allowed_units(problem.database(), space), space, model)
    costs = guided.menu.costs()
    ratio = guided.fastest_within(costs, 0.1, "f32")
    assert guided.menu.cost(costs, guided.solve(costs, 1.01 * ratio, "f32")) <= 0.1  # the solver rounds times up
    assert guided.menu.cost(costs, guided.solve(costs, 0.97 * ratio, "f32")) > 0.1


def test_without_a_goal_no_trial_is_spent_on_useless_models():
    problem = Problem()
    study = problem.search(problem.strategy("guided"), 30)
    assert np.median([trial.loss for trial in study.trials]) < MOST_LOSS
    assert max(trial.loss for trial in study.trials[:6]) < 3 * MOST_LOSS


class Stored(Problem):
    """Files that hold what the option database says of the branches, and more besides than it says."""

    def size(self, recipe: Recipe) -> int:
        total = 5e6
        for layer in recipe.layers:
            if layer.removed:
                continue
            heads, width = layer.attention.heads, layer.feed_forward.intermediate_size
            total += 1e6 * (1.0 if heads is None else heads / HEADS) * layer.attention.bits / 32
            total += 1e6 * (1.0 if width is None else width / WIDTH) * layer.feed_forward.bits / 32
        return round(total)


def test_a_size_limit_is_kept_beside_the_other_goal():
    """12 branches of 1 MB and 5 MB besides: 6.2 MB leave a tenth of the weights in floating point, four in int8."""
    problem = Stored()
    free = problem.search(problem.strategy("guided"), 24, goal=Goal(max_drop=0.05), first=problem.presets())
    assert max(trial.size_bytes for trial in free.trials[-12:]) > 6.2e6
    tight = problem.search(
        problem.strategy("guided"), 40, goal=Goal(max_drop=0.05, max_size_mb=6.2), first=problem.presets()
    )
    late = [trial for trial in tight.trials if trial.source == "guided"][2:]  # the first files show what else they hold
    assert len(late) > 20
    assert max(trial.size_bytes for trial in late) <= 6.2e6 + 2000
    assert min(trial.drop for trial in late) < 0.3


def test_files_that_were_too_large_to_be_evaluated_teach_what_fits():
    """The database knows of 1 MB beside the branches, and there are 5: the first files are all too large."""
    problem, goal = Stored(), Goal(max_size_mb=6.2)
    strategy = problem.strategy("guided")
    study = StudyState(job_id="job", seed=0, goal=goal, trials=())
    first = strategy.ask(study, 3)
    records = [problem.record(number, proposal) for number, proposal in enumerate(first)]
    assert not any(goal.fits(record.size_bytes) for record in records)
    unknown = {"loss": None, "drop": None, "drop_at_least": None, "divergence": None, "ratio": None}
    study = replace(study, trials=tuple(replace(r, predicted=r.ratio, **unknown) for r in records))
    assert all(problem.size(proposal.recipe) <= 6.2e6 + 2000 for proposal in strategy.ask(study, 6))


def test_models_that_were_rejected_after_their_evaluation_teach_what_options_cost():
    problem = Problem()
    study = problem.search(problem.strategy("guided"), 12)
    rejected = [replace(trial, predicted=trial.ratio, ratio=None) for trial in study.trials]
    known, taught, unknown = (
        learnt_weights(problem, replace(study, trials=tuple(trials))) for trials in (study.trials, rejected, [])
    )
    assert np.allclose(known, taught)
    assert not np.allclose(known, unknown)
    failed = [replace(trial, outcome="failed") for trial in rejected]
    assert np.allclose(learnt_weights(problem, replace(study, trials=tuple(failed))), unknown)


def learnt_weights(problem, study):
    """What a turn has learnt about how much the error of each unit costs."""
    strategy = problem.strategy("guided")
    return strategy._turn(strategy._solver(study), study)._weights


def test_what_was_explored_and_does_not_fit_is_not_tried():
    """As far as the database knows: 1 MB beside the branches, of which 4 MB are allowed."""
    problem = Stored()
    known = [proposal.recipe for proposal in problem.strategy("guided").ask(StudyState("job", 0, Goal(), ()), 6)]
    explored = tuple(Explored(recipe=recipe, ratio=0.4, divergence=0.001) for recipe in known)
    proposals = problem.strategy("guided", explored=explored).ask(StudyState("job", 0, Goal(max_size_mb=5.0), ()), 6)
    tried = [proposal.recipe for proposal in proposals if proposal.sampler_state == {"origin": "explored"}]
    small = [recipe for recipe in known if problem.size(recipe) <= 9e6]
    assert tried == small
    assert 0 < len(small) < 6


def test_a_latency_ceiling_that_the_table_rules_out_is_refused_before_the_search():
    problem = Problem()
    study = problem.search(problem.strategy("direct"), 4, first=problem.presets())
    fastest = 20 * min(trial.ratio for trial in study.trials)
    strategy = problem.strategy("guided")
    with pytest.raises(InfeasibleGoalError, match="smallest allowed model"):
        strategy.ask(replace(study, goal=Goal(max_latency_ms=1.0)), 1)
    assert strategy.ask(replace(study, goal=Goal(max_latency_ms=0.9 * fastest)), 1)


def test_the_rounding_of_a_branch_says_nothing_of_what_its_removal_costs():
    """Five candidates whose losses do not follow from their errors, and a branch that is only rounded in them."""
    errors = np.array([[0.0008, 0.0010], [0.0008, 0.0100], [0.0008, 0.0200], [0.0008, 0.0400], [0.0008, 0.1000]])
    losses = np.array([0.0002, 0.0070, 0.0250, 0.0700, 0.2000])
    weights = fit_weights(errors, losses, np.ones(2), PRIOR_WEIGHT, np.array([0.07, 0.3]))
    assert weights[0] / weights[1] == pytest.approx(1.0, abs=0.2)
    assert fit_weights(errors, losses, np.ones(2), PRIOR_WEIGHT)[0] < 0.1, "the test has nothing to show"


@pytest.mark.parametrize(
    ("capabilities", "precision"),
    [({"bits": (32,)}, "f32"), ({"precisions": ("f32", "bf16")}, "bf16")],
    ids=["no int8", "faster arithmetic than int8"],
)
def test_a_database_for_all_devices_is_cut_to_what_this_one_runs(capabilities, precision):
    """With low rank in it as well, which this one does not gain from."""
    database = Problem().database()
    narrow = database.units[0].options[3]
    factorised = narrow.model_copy(update={"attention": narrow.attention.model_copy(update={"rank": 16})})
    units = [unit.model_copy(update={"options": (*unit.options, factorised)}) for unit in database.units[::2]]
    database = database.model_copy(update={"units": tuple(units)})
    both = ({"low_rank": True}, "f32"), ({"low_rank": False} | capabilities, precision)
    found = []
    for device, arithmetic in both:
        known = CAPABILITIES.model_copy(update=device)
        space = build_space(ANATOMY, known, Space(), GraphDefaults(precision=arithmetic))
        options = [option.recipe for unit in allowed_units(database, space) for option in unit.options]
        found.append(({recipe.bits for recipe in options}, {recipe.rank for recipe in options}))
    assert found == [({32, 8}, {None, 16}), ({32}, {None})]
