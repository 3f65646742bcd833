"""Whose time counts against a job's budget, and what the job does when its time is over or nobody serves it."""

from datetime import timedelta

import pytest
from sqlmodel import select

from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import Step
from infra.steps import create_step
from search import coordinator
from search import service
from search.job_clock import LONGEST_GAP
from search.job_clock import PATIENCE
from search.job_clock import active_seconds
from search.lifecycle import set_stage

GOAL = {"max_drop": 0.01}
RECOVERY = {"goal": GOAL, "budget": {"seconds": None, "trials": 12}, "recover": {"seconds": 400}}
NIGHT = timedelta(hours=10)


def job_of(bench, job_id):
    with bench.database.read_session() as session:
        return session.get(Job, job_id)


def open_steps(bench, job_id):
    with bench.database.read_session() as session:
        steps = session.exec(select(Step).where(Step.job_id == job_id, Step.state == "queued")).all()
    return sorted(step.kind for step in steps if step.kind != "tick")


def notices(bench, job_id):
    with bench.database.read_session() as session:
        events = session.exec(select(Event).where(Event.job_id == job_id, Event.kind == "notice")).all()
    return [event.payload["message"] for event in events]


def no_search_notices(bench, job_id):
    start, _, _ = coordinator.NO_SEARCH.partition("{")
    return sum(message.startswith(start) for message in notices(bench, job_id))


def run_until(bench, job_id, condition):
    while not condition():
        bench.run(job_id, most=1)


def tick(bench, job_id):
    with bench.database.write_session() as session:
        coordinator.tick(session, session.get(Job, job_id), bench.now)


def test_a_night_without_the_service_costs_no_budget(bench):
    bench.seconds = 2.0
    job_id = bench.submit(budget={"seconds": 400})
    bench.run(job_id, most=20)
    before = len(bench.trials(job_id))
    bench.now += NIGHT
    assert active_seconds(job_of(bench, job_id), bench.now) == 40 + LONGEST_GAP
    job = bench.run(job_id)
    assert job.state == "succeeded"
    assert len(bench.trials(job_id)) > before + 5
    assert not any(trial.state == "cancelled" for trial in bench.trials(job_id))
    assert 250 < active_seconds(job, job.finished_at) <= 400


def test_a_night_without_the_service_costs_no_training(bench):
    job_id = bench.submit(**RECOVERY)
    run_until(bench, job_id, lambda: "recover" in open_steps(bench, job_id))
    bench.now += NIGHT
    assert bench.run(job_id).state == "succeeded"
    with bench.database.read_session() as session:
        trainings = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "recover")).all()
    assert sum(step.payload["seconds"] for step in trainings) > 250


@pytest.mark.parametrize("last", ["table", "options"])
def test_learning_that_takes_longer_than_the_budget_leaves_the_baselines_as_an_answer(bench, last):
    job_id = bench.submit(strategy="guided", goal=GOAL, budget={"seconds": 100})
    run_until(bench, job_id, lambda: "table" in open_steps(bench, job_id))
    if last == "options":
        bench.run(job_id, most=1)
        with bench.database.write_session() as session:
            set_stage(session, session.get(Job, job_id), "options")
    bench.wait(job_id, 30)
    tick(bench, job_id)
    assert "options" in open_steps(bench, job_id), "there is time: nothing is cut"
    bench.wait(job_id, 60)
    tick(bench, job_id)
    assert open_steps(bench, job_id) == ["confirm"]
    assert coordinator.OUT_OF_TIME.format(stage=last) in notices(bench, job_id)
    assert no_search_notices(bench, job_id) == 0
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    assert job.summary["best"] in {trial.id for trial in bench.trials(job_id)}
    assert job.summary["confirmed"]


def test_races_of_graphs_end_with_the_budget_and_the_baselines_are_still_tried(bench):
    job_id = bench.submit(strategy="guided", goal=GOAL, budget={"seconds": 100})
    with bench.database.write_session() as session:
        set_stage(session, session.get(Job, job_id), "graphs")
        for step in session.exec(select(Step).where(Step.job_id == job_id)):
            step.state = "done"
        create_step(session, job_id=job_id, kind="graphs", key="graphs", queue="device.local-cpu")
    bench.wait(job_id, 30)
    tick(bench, job_id)
    assert open_steps(bench, job_id) == ["graphs"]
    bench.wait(job_id, 90)
    tick(bench, job_id)
    assert open_steps(bench, job_id) == []
    assert bench.run(job_id).state == "succeeded"
    assert {trial.state for trial in bench.trials(job_id)} == {"complete"}
    assert no_search_notices(bench, job_id) == 1


def waiting_for_a_healed_model(bench):
    """Return a job of which a trained model waits for its measurement."""
    job_id = bench.submit(**RECOVERY)
    run_until(
        bench, job_id, lambda: job_of(bench, job_id).stage == "recover" and "measure" in open_steps(bench, job_id)
    )
    return job_id


def test_a_device_that_goes_away_in_the_recovery_ends_it(bench):
    job_id = waiting_for_a_healed_model(bench)
    bench.wait(job_id, 400)
    tick(bench, job_id)
    assert "measure" in open_steps(bench, job_id), "it may come back as long as there is time for training"
    bench.wait(job_id, PATIENCE + 30)
    tick(bench, job_id)
    assert job_of(bench, job_id).stage == "finalise"
    assert open_steps(bench, job_id)[-1] == "confirm"
    assert not any(trial.state in {"queued", "evaluated"} for trial in bench.trials(job_id))
    assert bench.run(job_id).state == "succeeded"


def test_a_recovery_whose_queue_is_served_is_waited_for(bench):
    job_id, other_id = waiting_for_a_healed_model(bench), bench.submit(**RECOVERY)
    for number in range(60):
        with bench.database.write_session() as session:
            key = f"other:{number}"
            step = create_step(session, job_id=other_id, kind="measure", key=key, queue="device.local-cpu")
            step.state, step.finished_at = "done", bench.now
        bench.wait(job_id, 30)
    tick(bench, job_id)
    assert "measure" in open_steps(bench, job_id)
    assert job_of(bench, job_id).stage == "recover"


@pytest.mark.parametrize(("note", "stage"), [(None, "recover"), ({"postponed": 3}, "finalise")])
def test_a_step_under_way_is_waited_for_unless_what_it_needs_is_away(bench, note, stage):
    job_id = waiting_for_a_healed_model(bench)
    with bench.database.write_session() as session:
        (step,) = session.exec(select(Step).where(Step.kind == "measure", Step.state == "queued")).all()[:1]
        step.state, step.error = "running", note
    bench.wait(job_id, 3 * PATIENCE)
    tick(bench, job_id)
    assert job_of(bench, job_id).stage == stage


def test_a_device_that_goes_away_in_the_finish_leaves_the_numbers_of_the_search(bench):
    job_id = bench.submit(goal=GOAL)
    run_until(bench, job_id, lambda: "confirm" in open_steps(bench, job_id))
    bench.wait(job_id, PATIENCE - 60)
    tick(bench, job_id)
    assert job_of(bench, job_id).state == "running"
    bench.wait(job_id, 120)
    tick(bench, job_id)
    job = job_of(bench, job_id)
    assert job.state == "succeeded"
    assert job.summary["verdict"] == "better_model"
    assert not job.summary["confirmed"]
    with bench.database.read_session() as session:
        front = service.front(session, session.get(Job, job_id))
    assert front.status == "provisional"
    assert front.best.quality.split == "search"
    assert any("No worker of the device" in message for message in notices(bench, job_id))


def test_a_preparation_that_nobody_serves_waits_and_says_so_once(bench):
    job_id = bench.submit(goal=GOAL)
    with bench.database.write_session() as session:
        set_stage(session, session.get(Job, job_id), "prepare")
        for step in session.exec(select(Step).where(Step.job_id == job_id)):
            step.state = "done"
        create_step(session, job_id=job_id, kind="prepare", key="prepare", queue="compute")
    bench.wait(job_id, PATIENCE - 60)
    assert not notices(bench, job_id)
    bench.wait(job_id, 2 * PATIENCE)
    (told,) = notices(bench, job_id)
    assert "10 minutes no worker has served the queue 'compute'" in told
    assert job_of(bench, job_id).state == "running"
    assert open_steps(bench, job_id) == ["prepare"]
