"""Which healed int8 models are finished by a training that knows about int8, in which order, for how long."""

from dataclasses import replace
from datetime import timedelta

import pytest

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from infra.database.models import Job
from search import coordinator
from search.healing import USUAL_OVERHEAD
from search.healing import _overhead
from search.healing import _spent
from search.quantized_finish import FINISH_SHARE
from search.quantized_finish import LEAST_STEPS
from search.quantized_finish import SLOWER
from search.quantized_finish import finish_candidates
from search.quantized_finish import lose_by_rounding
from search.quantized_finish import shape_digest
from search.requests import Goal
from search.study import TrialRecord
from tests.unit.search import synthetic
from tests.unit.search.recoveries import GOAL
from tests.unit.search.recoveries import SEARCH
from tests.unit.search.recoveries import recoveries
from tests.unit.search.synthetic import truth


def record(number, weights, bits, drop, ratio, width=384):
    feed_forward = FeedForwardRecipe(bits=bits, intermediate_size=width)
    recipe = Recipe(
        layers=(LayerRecipe(attention=AttentionRecipe(bits=bits), feed_forward=feed_forward),), weights=weights
    )
    found = TrialRecord(str(number), number, recipe.digest, "recovery", "done", recipe=recipe, drop=drop, ratio=ratio)
    return replace(found, loss=drop, size_bytes=width * bits)


def healed(number, drop, rounded, ratio, width, weights=None):
    """A healed model in floating point and in int8, which is faster by half."""
    weights = weights or f"w{number}"
    return [record(number, weights, 32, drop, 2 * ratio, width), record(number + 1, weights, 8, rounded, ratio, width)]


def finishes(records, goal, finished=()):
    """Numbers of the models to finish, in order."""
    return [record.number for record, _ in finish_candidates(records, goal, finished)]


def test_only_what_loses_more_than_its_share_is_finished():
    goal = Goal(**GOAL)
    fine = healed(0, 0.005, 0.006, 0.2, 384)
    assert finishes(fine, goal) == []
    loses = [*fine, *healed(2, 0.005, 0.012, 0.15, 256)]
    assert [recipe for _, recipe in finish_candidates(loses, goal)] == [loses[-1].recipe]
    smoothed = QuantizationRecipe(scheme="static", smoothing=0.7)
    last = replace(loses[-1], recipe=loses[-1].recipe.model_copy(update={"quantization": smoothed}))
    (found,) = finish_candidates([*loses[:-1], last], goal)
    assert found[1].quantization == QuantizationRecipe(scheme="static")
    assert finishes([*loses[:-1], last], goal, {shape_digest(found[1])}) == [], "each has one finish"


def test_what_is_no_faster_for_being_rounded_needs_no_finish():
    """On a processor with AMX the bf16 model beside it may be the faster one: what int8 loses there harms nobody."""
    floating, rounded = healed(0, 0.005, 0.012, 0.2, 384)
    for ratio, expected in ((0.39, True), (0.41, False)):
        records = [floating, replace(rounded, ratio=ratio)]
        assert lose_by_rounding(records, Goal(**GOAL)) == expected
        assert finishes(records, Goal(**GOAL)) == [1] * expected
        unmeasured = [floating, replace(rounded, ratio=None, predicted=ratio)]
        assert lose_by_rounding(unmeasured, Goal(**GOAL)) == expected, "rejected for what it loses, and not measured"


def test_the_fastest_that_meets_the_goal_is_finished_first_and_what_is_hopeless_not_at_all():
    records = [
        *healed(0, 0.004, 0.012, 0.30, 384),
        *healed(2, 0.008, 0.016, 0.20, 256),
        *healed(4, 0.019, 0.060, 0.10, 64),  # misses the goal, and would be on the front
        *healed(6, 0.015, 0.050, 0.15, 128),  # the same, by less
        *healed(8, 0.009, 0.020, 0.25, 320),  # even without rounding slower and worse than the next
        *healed(10, 0.0085, 0.0085, 0.22, 300),
        *healed(12, 0.021, 0.060, 0.05, 32),  # even without rounding further from the goal than fronts go
    ]
    assert finishes(records, Goal(**GOAL)) == [3, 1, 7, 5]
    assert finishes(records, Goal(max_latency_ms=3.0)) == [1, 3, 7, 5, 13], "the most exact below a ceiling"
    timed = [replace(record, reference_ms=10.0) for record in records]
    assert finishes(timed, Goal(max_latency_ms=2.1)) == [3, 7, 5, 13, 1], "above the ceiling, however exact"
    assert finishes(timed, Goal(max_latency_ms=0.9)) == [13, 5, 7, 3, 1], "the nearest to the ceiling"
    assert finishes(records, Goal(max_drop=0.01, max_size_mb=256 * 8 / 1e6))[0] == 3
    assert finishes(records, Goal(max_drop=0.01, max_size_mb=200 * 8 / 1e6))[0] == 1, "too large to be the answer"


def test_of_the_weights_of_one_shape_the_best_are_finished():
    scout, trained = healed(0, 0.009, 0.020, 0.2, 384, "scout"), healed(2, 0.005, 0.015, 0.2, 384, "trained")
    for records in ([*scout, *trained], [*trained, *scout]):
        assert finishes(records, Goal(**GOAL)) == [3]


LENIENT = {"max_drop": 0.04}


def finishing_job(bench, **changes):
    bench.rounding, bench.longest, bench.seconds = 0.02, 40.0, 0.5
    return bench.submit(recover={"seconds": 1200, "mode": "gradual"} | changes, **SEARCH | {"goal": LENIENT})


def finish_steps(bench, job_id):
    return [step for step in recoveries(bench, job_id) if step.payload.get("finish")]


def test_several_int8_models_are_finished_while_their_part_of_the_time_lasts(bench):
    bench.useless = {"recover:finish:1"}
    job_id = finishing_job(bench)
    assert bench.run(job_id).state == "succeeded"
    steps = finish_steps(bench, job_id)
    share = FINISH_SHARE * 1200
    assert [step.key for step in steps] == ["recover:finish:0", "recover:finish:1", "recover:finish:2"]
    assert [step.payload["seconds"] for step in steps] == pytest.approx([share, share - 40, share - 80])
    recipes = [Recipe.model_validate(step.payload["recipe"]) for step in steps]
    assert len({shape_digest(recipe) for recipe in recipes}) == 3
    hoped = {
        trial.candidate["recipe"]["weights"]: truth(trial)[1]
        for trial in bench.trials(job_id)
        if trial.facts.get("recovery")
    }
    order = [hoped[recipe.weights] for recipe in recipes]
    assert order[0] < LENIENT["max_drop"] < order[1]
    assert order == sorted(order), "what meets the goal, then those that miss it by the least"
    trained = {step.output["weights"] for step in recoveries(bench, job_id)} - {s.output["weights"] for s in steps}
    assert {recipe.weights for recipe in recipes} <= trained
    kept = {
        t.candidate["recipe"]["weights"]
        for t in bench.trials(job_id)
        if t.facts.get("recovery", {}).get("quantized_finish")
    }
    assert kept == {steps[0].output["weights"], steps[2].output["weights"]}, "what was worth nothing makes no trial"


def test_a_finish_that_failed_costs_the_time_that_it_took(bench):
    job_id = finishing_job(bench)
    bench.run(job_id)
    first = finish_steps(bench, job_id)[0]
    first.output = None
    first.finished_at = first.started_at + timedelta(seconds=0.5)
    assert _spent(first) == 0.5
    first.finished_at = first.started_at + timedelta(days=1)
    assert _spent(first) == first.payload["seconds"]


def test_a_finish_that_has_no_useful_time_is_not_begun(bench):
    bench.rounding = 0.01
    too_short = 0.9 * LEAST_STEPS * SLOWER / 10 / FINISH_SHARE  # ten steps a second
    job_id = bench.submit(recover={"seconds": too_short}, **SEARCH)
    assert bench.run(job_id).state == "succeeded"
    assert recoveries(bench, job_id)
    assert finish_steps(bench, job_id) == []
    job_id = finishing_job(bench, quantized_finish=False)
    bench.run(job_id)
    assert finish_steps(bench, job_id) == []


def plan_of(bench, job_id):
    """Each training's shape and seconds."""
    steps = [step for step in recoveries(bench, job_id) if not step.payload.get("finish")]
    return [(step.payload["place"][1], step.payload["seconds"]) for step in steps]


def test_time_for_finishes_that_nobody_needs_is_trained(bench):
    plans = {}
    for finishing in (True, False):
        job_id = bench.submit(recover={"seconds": 1200, "quantized_finish": finishing}, **SEARCH)
        job = bench.run(job_id)
        assert not finish_steps(bench, job_id)
        assert job.summary["wall_seconds"]["recover"] <= 1210
        plans[finishing] = plan_of(bench, job_id)
    assert plans[True] == plans[False], "as if no part had been kept"
    assert sum(seconds for _, seconds in plans[True]) > 1200 - FINISH_SHARE * 1200


def test_time_for_finishes_is_kept_until_a_model_was_tried_in_int8_and_while_one_needs_it(bench):
    job_id = bench.submit(recover={"seconds": 1200, "mode": "gradual"}, **SEARCH)
    bench.run(job_id)
    (_, first), *later = plan_of(bench, job_id)
    members = 1 + len(later)
    assert first * members < 1200 * (1 - FINISH_SHARE)
    assert first + sum(seconds for _, seconds in later) > 1200 * (1 - FINISH_SHARE)
    bench.rounding = 0.01
    job_id = bench.submit(recover={"seconds": 1200, "mode": "gradual"}, **SEARCH)
    bench.run(job_id)
    assert sum(seconds for _, seconds in plan_of(bench, job_id)) <= 1200 * (1 - FINISH_SHARE)
    assert finish_steps(bench, job_id)


def test_what_trainings_take_besides_is_not_trained(bench):
    job_id = bench.submit(recover={"seconds": 1200}, **SEARCH)
    bench.run(job_id)
    steps = recoveries(bench, job_id)
    assert _overhead([], 0.0) == USUAL_OVERHEAD
    assert _overhead(steps[:1], 1e6) == USUAL_OVERHEAD, "the first runs the dense model as well"
    for step, besides in zip(steps, (60.0, 5.0, 500.0, 7.0), strict=False):
        step.finished_at = step.started_at + timedelta(seconds=step.output["seconds"] + besides)
    steps[3].payload |= {"place": [3, 0]}
    assert _overhead(steps[:4], 1e6) == pytest.approx(7.0)
    trained = sum(step.output["seconds"] for step in steps[:2])
    steps[1].finished_at += timedelta(hours=8)  # the service was off
    assert _overhead(steps[:2], trained + 9.0) == pytest.approx(9.0), "no more than the stage has worked"
    steps[1].output = None  # failed
    assert _overhead(steps[:2], 1e6) == USUAL_OVERHEAD


def test_models_that_lose_by_rounding_keep_the_time_for_finishes_though_they_are_no_answer(bench):
    bench.rounding = 0.03
    job_id = bench.submit(recover={"seconds": 1200}, **SEARCH)
    bench.run(job_id)
    steps = [step for step in recoveries(bench, job_id) if not step.payload.get("finish")]
    assert sum(step.payload["seconds"] for step in steps) <= 1200 * (1 - FINISH_SHARE)
    assert finish_steps(bench, job_id), "of the winner, which is an answer in floating point, and faster in int8"


def test_models_that_rounding_makes_slower_keep_no_time_for_finishes(bench, monkeypatch):
    """The same loss as above, but here nobody would want these models, however exact a finish made them."""
    bench.rounding = 0.03
    exact = synthetic.true_ratio
    monkeypatch.setattr(
        synthetic, "true_ratio", lambda recipe: exact(in_floating_point(recipe)) * (1.0 + 0.2 * is_rounded(recipe))
    )
    monkeypatch.setitem(synthetic.BASELINES, "int8_one_liner", (1.2, 0.004, 300))
    job_id = bench.submit(recover={"seconds": 1200}, **SEARCH)
    bench.run(job_id)
    assert finish_steps(bench, job_id) == []
    assert sum(seconds for _, seconds in plan_of(bench, job_id)) > 1200 * (1 - FINISH_SHARE)


def is_rounded(recipe):
    return any(8 in (layer.attention.bits, layer.feed_forward.bits) for layer in recipe.layers)


def in_floating_point(recipe):
    return recipe.model_copy(update={"layers": tuple(layer.with_branches(bits=32) for layer in recipe.layers)})


def test_ticking_again_finishes_nothing_twice(bench):
    job_id = finishing_job(bench)
    for _ in range(400):
        with bench.database.write_session() as session:
            for _ in range(2):
                coordinator.tick(session, session.get(Job, job_id), bench.now)
        if bench.run(job_id, most=1).state != "running":
            break
    steps = finish_steps(bench, job_id)
    assert len(steps) == 3
    assert len({shape_digest(Recipe.model_validate(step.payload["recipe"])) for step in steps}) == 3
