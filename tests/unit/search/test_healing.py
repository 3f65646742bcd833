"""Recovery training as a stage of a job: which shapes, in which order, for how long, and what becomes of them."""

import pytest
from sqlmodel import select

from compressors.recovery.racing import RaceRound
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import Step
from search import coordinator
from search import service
from search.race import Outcome
from search.race import next_training
from search.requests import Goal
from tests.unit.search.synthetic import truth

GOAL = {"max_drop": 0.01}
SEARCH = {"goal": GOAL, "budget": {"seconds": None, "trials": 16}}


def front_of(bench, job_id):
    with bench.database.read_session() as session:
        return service.front(session, session.get(Job, job_id))


def recoveries(bench, job_id):
    with bench.database.read_session() as session:
        statement = select(Step).where(Step.job_id == job_id, Step.kind == "recover")
        return list(session.exec(statement.order_by(Step.created_at)))


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
    assert front.best.latency.ratio.value < 0.9 * before.best.latency.ratio.value
    assert not any(point.healed for point in before.points)

    healed = [trial for trial in bench.trials(job_id) if trial.source == "recovery"]
    by_weights = {}
    for trial in healed:
        recipe = trial.candidate["recipe"]
        branches = [layer[name] for layer in recipe["layers"] for name in ("attention", "feed_forward")]
        by_weights.setdefault(recipe["weights"], []).append(any(branch["bits"] == 8 for branch in branches))
    assert all(sorted(formats) == [False, True] for formats in by_weights.values())
    assert {step.output["weights"] for step in recoveries(bench, job_id)} == set(by_weights)


def test_many_train_a_little_and_one_trains_a_lot_within_the_time(bench):
    bench.seconds = 0.5
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    job = bench.run(job_id)
    steps = recoveries(bench, job_id)
    first = [step for step in steps if step.payload["place"][0] == 0]
    last = [step for step in steps if step.payload["place"][0] == 1]
    assert len(first) >= 3
    assert len(last) == 1
    assert last[0].payload["seconds"] > 2 * first[0].payload["seconds"]
    # The winner goes on from the weights of its first round.
    winner = next(step for step in first if step.payload["place"][1] == last[0].payload["place"][1])
    assert last[0].payload["recipe"]["weights"] == winner.output["weights"]
    assert 300 < job.summary["wall_seconds"]["recover"] <= 410
    wall = job.summary["wall_seconds"]
    parts = ("prepare", "learn", "search", "recover", "finalise")
    assert wall["total"] == pytest.approx(sum(wall[part] for part in parts), abs=1)


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
    bench.fails = {"recover:0:0", "recover:0:1"}
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    assert bench.run(job_id).state == "succeeded"
    done = [step.payload["place"] for step in recoveries(bench, job_id) if step.state == "done"]
    assert {tuple(place) for place in done} >= {(0, 2), (1, done[-1][1])}
    assert done[-1][0] == 1
    bench.fails = {f"recover:0:{number}" for number in range(9)}
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
    assert sum(number for number, _ in done) == 1


def test_a_cancelled_job_trains_no_more(bench):
    job_id = bench.submit(recover={"seconds": 400}, **SEARCH)
    while not recoveries(bench, job_id):
        bench.run(job_id, most=1)
    with bench.database.write_session() as session:
        service.cancel_job(session, session.get(Job, job_id))
    bench.run(job_id)
    assert [step.state for step in recoveries(bench, job_id)] == ["cancelled"]
    assert not any(trial.source == "recovery" for trial in bench.trials(job_id))


def test_the_race_prefers_the_fastest_shape_that_will_keep_to_the_goal():
    rounds = [RaceRound(3, 10.0), RaceRound(1, 90.0)]

    def outcome(drop, half):
        curve = tuple((float(second), -drop * 0.5 ** ((second - 10) / half)) for second in range(0, 11, 2))
        return Outcome(False, f"w{drop}", drop, 0.001, curve)

    def winner(*outcomes):
        found = next_training([0.5, 0.3, 0.1], rounds, {(0, n): o for n, o in enumerate(outcomes)}, Goal(**GOAL))
        assert found.last
        return found.place

    good, close, hopeless = outcome(0.002, 20), outcome(0.02, 8), outcome(0.3, 80)
    assert winner(good, close, hopeless) == (1, 1)
    assert winner(good, outcome(0.2, 80), hopeless) == (1, 0)
    assert winner(good, Outcome(True), Outcome(True)) == (1, 0)


def test_training_text_needs_a_training():
    from search.requests import JobRequest

    with pytest.raises(ValueError, match="give recover as well"):
        JobRequest(model_id="m", dataset_id="d", train_id="t")
