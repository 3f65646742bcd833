"""Recovery training as a stage of a job: which shapes, in which order, for how long, and what becomes of them."""

import itertools

import pytest
from sqlmodel import select

from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.recipe import candidate_digest
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import Step
from profilers.types import Estimate
from search import coordinator
from search import service
from search.estimator import latency_model
from search.healing import Healing
from search.job_context import job_context
from search.outcomes import kept_model
from search.outcomes import lanes_of
from search.race import SCOUTS
from search.race import Judged
from search.race import Outcome
from search.records import job_records
from search.requests import JobRequest
from search.requests import Recover
from search.shapes import FASTER
from search.shapes import Shape
from search.shapes import in_formats
from tests.unit.search.recoveries import GOAL
from tests.unit.search.recoveries import SEARCH
from tests.unit.search.recoveries import recoveries
from tests.unit.search.synthetic import truth


def front_of(bench, job_id):
    with bench.database.read_session() as session:
        return service.front(session, session.get(Job, job_id))


def stages(bench, job_id):
    with bench.database.read_session() as session:
        events = session.exec(select(Event).where(Event.job_id == job_id, Event.kind == "stage").order_by(Event.id))
        return [event.payload["stage"] for event in events]


@pytest.mark.parametrize("strategy", ["guided", "direct"])
def test_healed_models_win_and_are_marked(bench, strategy):
    unhealed = bench.submit(strategy=strategy, **SEARCH)
    bench.run(unhealed)
    job_id = bench.submit(strategy=strategy, recover={"seconds": 600}, **SEARCH)
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    assert stages(bench, job_id)[-3:] == ["search", "recover", "finalise"]

    before, front = front_of(bench, unhealed), front_of(bench, job_id)
    assert front.best.healed
    assert front.best.name.endswith("healed")
    assert front.best.quality.drop.value <= GOAL["max_drop"]
    assert front.best.latency.ratio.value < FASTER * before.best.latency.ratio.value
    assert not any(point.healed for point in before.points)

    healed = [trial for trial in bench.trials(job_id) if trial.source == "recovery"]
    by_weights = {}
    for trial in healed:
        recipe = trial.candidate["recipe"]
        branches = [layer[name] for layer in recipe["layers"] for name in ("attention", "feed_forward")]
        by_weights.setdefault(recipe["weights"], []).append(any(branch["bits"] == 8 for branch in branches))
    assert all(sorted(formats) == [False, True] for formats in by_weights.values())
    assert {step.output["weights"] for step in recoveries(bench, job_id)} == set(by_weights)


def test_few_train_a_little_and_the_winner_trains_a_lot_within_the_time(bench):
    bench.seconds = 0.5
    job_id = bench.submit(recover={"seconds": 1200}, **SEARCH)
    job = bench.run(job_id)
    steps = recoveries(bench, job_id)
    first, later = steps[:SCOUTS], steps[SCOUTS:]
    assert len({step.payload["place"][1] for step in first}) == SCOUTS
    assert [step.payload["place"][0] for step in steps] == list(range(len(steps)))
    assert 1 <= len(later) <= 4
    assert later[0].payload["seconds"] > 2 * first[0].payload["seconds"]
    # Whoever trains again goes on from the weights that it had.
    weights = {}
    for step in steps:
        shape = step.payload["place"][1]
        assert step.payload["recipe"]["weights"] == weights.get(shape)
        weights[shape] = step.output["weights"]
    assert 900 < job.summary["wall_seconds"]["recover"] <= 1215
    wall = job.summary["wall_seconds"]
    parts = ("prepare", "learn", "search", "recover", "finalise")
    assert wall["total"] == pytest.approx(sum(wall[part] for part in parts), abs=1)


def test_a_gradual_family_is_cut_from_member_to_member(bench):
    job_id = bench.submit(recover={"seconds": 400, "mode": "gradual", "start": "taylor"}, **SEARCH)
    assert bench.run(job_id).state == "succeeded"
    steps = recoveries(bench, job_id)
    assert len(steps) >= 2
    sizes = []
    for before, step in itertools.pairwise(steps):
        parent = step.payload["parent"]
        assert parent["weights"] == before.output["weights"]
        assert parent["layers"] == before.payload["recipe"]["layers"]
        assert step.payload["recipe"]["weights"] is None
    for step in steps:
        assert step.payload["recipe"]["criterion"] == "taylor"
        assert step.payload["recipe"]["compensation"] == "none"
        layers = step.payload["recipe"]["layers"]
        sizes.append(sum((layer["feed_forward"]["intermediate_size"] or 8) for layer in layers))
    assert sizes == sorted(set(sizes), reverse=True)
    seconds = [step.payload["seconds"] for step in steps]
    assert max(seconds) < 1.5 * min(seconds)
    healed = [trial for trial in bench.trials(job_id) if trial.source == "recovery"]
    assert {trial.candidate["recipe"]["weights"] for trial in healed} == {step.output["weights"] for step in steps}


def test_after_a_training_that_was_worth_nothing_the_shape_is_tried_as_it_was(bench):
    bench.useless = {f"recover:0:{shape}" for shape in range(20)}
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    assert bench.run(job_id).state == "succeeded"
    useless = recoveries(bench, job_id)[0]
    assert useless.key in bench.useless
    healed = {trial.candidate["recipe"]["weights"] for trial in bench.trials(job_id) if trial.source == "recovery"}
    assert useless.output["weights"] not in healed
    assert healed - {None}
    shape = useless.payload["place"][1]
    assert [step.payload["place"][1] for step in recoveries(bench, job_id)].count(shape) == 1
    with bench.database.read_session() as session:
        space = job_context(session.get(Job, job_id)).space
    as_it_was = in_formats(kept_model(useless.payload, useless.output), space)
    wanted = {candidate_digest(RecipeCandidate(recipe=recipe)) for recipe in as_it_was}
    assert len(wanted) == 2, "in each number format"
    assert wanted <= {trial.digest for trial in bench.trials(job_id) if trial.state in {"complete", "rejected"}}


def test_what_a_training_in_vain_leaves():
    output = {"improved": False, "weights": "w" * 64}
    shape = Recipe(layers=({}, {}), criterion="taylor", compensation="none").model_dump(mode="json")
    as_it_was = kept_model({"recipe": shape}, output)
    assert as_it_was.weights is None
    assert as_it_was.criterion == "obs", "gradients are known to trainings only"
    assert kept_model({"recipe": shape, "parent": shape}, output).weights == "w" * 64, "cut from a healed model"
    assert kept_model({"recipe": shape}, output | {"improved": True}).weights == "w" * 64


def test_shapes_are_faster_than_the_best_model_of_the_search(bench):
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    bench.run(job_id)
    searched = [trial for trial in bench.trials(job_id) if trial.source != "recovery" and trial.measurement]
    best = min(truth(trial)[0] for trial in searched if truth(trial)[1] <= GOAL["max_drop"])
    with bench.database.read_session() as session:
        shapes = session.get(Job, job_id).prepared["recovery"]["shapes"]
    assert len(shapes) >= 3
    assert all(shape["ratio"] < best for shape in shapes)
    assert shapes[0]["ratio"] > 1.2 * shapes[-1]["ratio"]


def test_time_of_the_search_is_not_spent_on_training(bench):
    bench.seconds = 2.0
    job_id = bench.submit(goal=GOAL, budget={"seconds": 200}, recover={"seconds": 1000})
    job = bench.run(job_id)
    assert job.state == "succeeded"
    assert any(trial.source == "recovery" and trial.final_measurement for trial in bench.trials(job_id))
    wall = job.summary["wall_seconds"]
    assert wall["recover"] > 800
    assert wall["total"] <= 1210
    with bench.database.read_session() as session:
        confirm = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "confirm")).one()
    assert confirm.payload["max_seconds"] > 20


def test_failed_trainings_cost_only_themselves(bench):
    job_id = bench.submit(recover={"seconds": 900}, **SEARCH)
    bench.run(job_id)
    bench.fails = {step.key for step in recoveries(bench, job_id)[:2]}
    job_id = bench.submit(recover={"seconds": 900}, **SEARCH)
    assert bench.run(job_id).state == "succeeded"
    states = [step.state for step in recoveries(bench, job_id)]
    assert states.count("failed") == 2
    assert states[-1] == "done"
    bench.fails = {f"recover:{turn}:{number}" for turn in range(20) for number in range(20)}
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    assert bench.run(job_id).state == "succeeded"
    assert not front_of(bench, job_id).best.healed


def test_ticking_again_trains_nothing_twice(bench):
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    for _ in range(200):
        with bench.database.write_session() as session:
            for _ in range(2):
                coordinator.tick(session, session.get(Job, job_id), bench.now)
        if bench.run(job_id, most=3).state != "running":
            break
    done = [step.payload["place"] for step in recoveries(bench, job_id)]
    assert len(done) == len({tuple(place) for place in done})
    assert len({number for number, _ in done}) == len(done)


def test_a_cancelled_job_trains_no_more(bench):
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    while not recoveries(bench, job_id):
        bench.run(job_id, most=1)
    with bench.database.write_session() as session:
        service.cancel_job(session, session.get(Job, job_id))
    bench.run(job_id)
    assert [step.state for step in recoveries(bench, job_id)] == ["cancelled"]
    assert not any(trial.source == "recovery" for trial in bench.trials(job_id))


def test_without_a_goal_as_many_shapes_train_as_can_be_evaluated_in_the_time(bench):
    job_id = bench.submit(recover={"seconds": 600}, **SEARCH | {"goal": {}})
    assert bench.run(job_id).state == "succeeded"
    steps = recoveries(bench, job_id)
    with bench.database.read_session() as session:
        healing = Healing.load(session.get_one(Job, job_id))
    digests = [Recipe.model_validate(step.payload["recipe"]).digest for step in steps]
    assert len(digests) == len(set(digests)) > 3
    assert sum(step.payload["seconds"] for step in steps) == pytest.approx(healing.seconds, rel=0.15)
    *others, last = [step.payload["seconds"] for step in steps]
    assert max(others) < 1.2 * min(others)
    assert 0.5 * others[0] < last < 1.2 * others[0], "what is left"


def test_training_text_needs_a_training():
    with pytest.raises(ValueError, match="give recover as well"):
        JobRequest(model_id="m", dataset_id="d", train_id="t")


def test_guided_repairs_without_labels_within_its_budget(bench):
    job_id = bench.submit(strategy="guided", goal=GOAL, budget={"seconds": 600})
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    assert stages(bench, job_id)[-3:] == ["search", "recover", "finalise"]
    wall = job.summary["wall_seconds"]
    assert 100 < wall["recover"] <= 0.5 * 600 + 10
    assert wall["total"] <= 610
    repaired = [trial for trial in bench.trials(job_id) if trial.source == "recovery"]
    assert repaired
    assert not any(trial.facts["recovery"]["use_labels"] for trial in repaired)
    assert not any(step.payload.get("finish") for step in recoveries(bench, job_id))


@pytest.mark.parametrize(
    "fields",
    [
        {"repair_share": 0},
        {"strategy": "direct"},
        {"budget": {"seconds": 440}},
        {"budget": {"seconds": None, "trials": 9}},
        {"space": {"kinds": ["bits"]}},
    ],
)
def test_no_repair_where_it_was_refused_or_has_no_time_or_nothing_to_do(fields):
    request = JobRequest.model_validate({"model_id": "m", "dataset_id": "d"} | fields)
    assert request.training is None
    assert request.search_seconds == request.budget.seconds


def test_recovery_training_takes_the_place_of_the_repair():
    request = JobRequest(model_id="m", dataset_id="d", recover=Recover(seconds=300))
    assert request.training == Recover(seconds=300)
    assert request.search_seconds == 600
    alone = JobRequest(model_id="m", dataset_id="d")
    assert alone.training == Recover(seconds=300, use_labels=False, quantized_finish=False)
    assert alone.search_seconds == 300


class Costs:
    """A latency model that knows one number: int8 takes 0.3, floating point 0.6."""

    @staticmethod
    def predict(recipe):
        eight = any(8 in (layer.attention.bits, layer.feed_forward.bits) for layer in recipe.layers)
        return Estimate(value=0.3 if eight else 0.6, low=0.1, high=0.9)


def test_shapes_that_were_tried_cost_what_was_measured(bench):
    job_id = bench.submit(**SEARCH)
    with bench.database.read_session() as session:
        space = job_context(session.get_one(Job, job_id)).space
    int8, floating = in_formats(space.dense_recipe(), space)
    shape = Shape(recipe=space.dense_recipe(), ratio=0.4, origin="uniform")
    assert (Costs.predict(int8).value, Costs.predict(floating).value) == (0.3, 0.6)
    first = Outcome(False, "a", {0: Judged(0.01, 0.001, 0.25), 1: Judged(0.009, 0.001, 0.5)})
    again = Outcome(False, "b", {0: Judged(0.03, 0.001), 1: Judged(0.004, 0.001, 0.51)})
    outcomes = {(0, 1): first, (1, 2): Outcome(True), (2, 1): again}
    lanes = lanes_of([shape] * 3, outcomes, Costs(), space)
    assert [lane.costs for lane in lanes] == [(0.3, 0.6), (0.25, 0.51), (0.3, 0.6)]
    assert {lane.planned for lane in lanes} == {0.4}


def test_trained_models_teach_the_race_what_others_cost(bench):
    """The device is not as the counted operations of the first predictions say."""
    job_id = bench.submit(recover={"seconds": 1200}, **SEARCH)
    bench.run(job_id)
    with bench.database.read_session() as session:
        job = session.get_one(Job, job_id)
        context = job_context(job)
        records = job_records(session, job_id, labelled=True)
        began = select(Event).where(Event.job_id == job_id, Event.kind == "notice").order_by(Event.id)
        payloads = [event.payload for event in session.exec(began) if "predicted_ratio" in event.payload]
        shapes = [Shape.model_validate(shape) for shape in job.prepared["recovery"]["shapes"]]
    assert any(record.source == "recovery" and record.ratio is not None for record in records)
    before = [record for record in records if record.source != "recovery"]
    model = latency_model(context.request, context.prepared, before)
    ratios = {payload["step"]: payload["predicted_ratio"] for payload in payloads}
    begun = {}
    for step in recoveries(bench, job_id):
        begun.setdefault(step.payload["place"][1], step.key)
    first, *later = begun.items()

    def expected(shape):
        return min(model.predict(variant).value for variant in in_formats(shapes[shape].recipe, context.space))

    assert ratios[first[1]] == pytest.approx(expected(first[0]))
    assert max(abs(ratios[key] - expected(shape)) for shape, key in later) > 1e-6
