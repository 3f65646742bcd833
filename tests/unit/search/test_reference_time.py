"""Milliseconds that goals are judged by do not depend on how fast the machine was when a model had its turn."""

from dataclasses import replace

import pytest
from sqlmodel import select

from infra.database.models import Job
from infra.database.models import Trial
from search import service
from search.reference_time import milliseconds
from search.reference_time import ratio_ceiling
from search.reference_time import usual_time
from search.requests import Goal
from search.requests import JobRequest
from search.shapes import latency_window
from search.standing import standings
from search.strategies.targets import target_ratio
from search.study import TrialRecord
from tests.unit.search.guided_problem import Problem
from tests.unit.search.synthetic import measurement


def drifted(row, factor):
    """A measurement as it would be on a machine that is so many times slower."""
    return row and row | {name: row[name] * factor for name in ("latency_ms", "reference_ms")}


def record(number, reference_ms, noisy=False, ratio=0.5):
    return TrialRecord(
        str(number), number, str(number), "direct", "done", ratio=ratio, loss=0.0, drop=0.0,
        reference_ms=reference_ms, noisy=noisy,
    )  # fmt: skip


def test_the_reference_takes_what_it_took_in_most_undisturbed_measurements():
    assert usual_time([]) is None
    assert usual_time([(20.0, False), (21.0, False), (90.0, False), (70.0, True), (80.0, True)]) == 21.0
    assert usual_time([(30.0, True), (50.0, True)]) == 40.0


def test_milliseconds_follow_the_ratio_and_of_memory_the_times():
    found = measurement(0.5).model_copy(update={"latency_ms": 12.0, "reference_ms": 30.0})
    assert milliseconds(found, 20.0) == pytest.approx(10.0)
    assert milliseconds(found.model_copy(update={"objective": "peak_memory"}), 20.0) == pytest.approx(8.0)


def test_a_ceiling_is_a_ratio_once_something_was_measured():
    goal = Goal(max_latency_ms=6.0)
    trials = [record(0, 40.0), record(1, 20.0), record(2, 20.0), record(3, 5.0, noisy=True), record(4, None)]
    assert ratio_ceiling(Goal(), trials) is None
    assert ratio_ceiling(goal, [record(4, None)]) is None
    assert ratio_ceiling(goal, trials) == pytest.approx(0.3)
    assert target_ratio(trials, goal, 0, slowest=1.0, fastest=0.01) == pytest.approx(0.3)
    request = JobRequest(model_id="m", dataset_id="d", goal=goal)
    assert latency_window(request, trials).slowest == pytest.approx(0.3)


@pytest.mark.parametrize("strategy", ["guided", "direct"])
def test_strategies_aim_at_the_same_models_when_single_measurements_were_slow(strategy):
    problem, goal = Problem(seed=3), Goal(max_latency_ms=6.0)
    study = problem.search(problem.strategy("guided"), 12, goal=goal)
    slow = [replace(t, reference_ms=35.0) if t.number % 4 == 1 else t for t in study.trials]
    ask = problem.strategy(strategy).ask
    assert ask(study, 4) == ask(replace(study, job_id="slow", trials=tuple(slow)), 4)


def test_the_choice_and_what_is_shown_do_not_move_with_the_machine(bench):
    job_id = bench.submit(goal={"max_latency_ms": 9.0}, budget={"seconds": None, "trials": 12})
    bench.run(job_id)

    def front():
        with bench.database.read_session() as session:
            return service.front(session, session.get_one(Job, job_id))

    before = front()
    assert before.best.latency.latency_ms == pytest.approx(20 * before.best.latency.ratio.value)
    assert before.best.latency.latency_ms <= 9.0
    with bench.database.write_session() as session:
        trial = session.get_one(Trial, before.best.id)
        trial.measurement = drifted(trial.measurement, 3.0)
        trial.final_measurement = drifted(trial.final_measurement, 3.0)
    after = front()
    assert after.best.id == before.best.id
    assert after.best.latency.latency_ms == before.best.latency.latency_ms
    assert after.best.latency.reference_ms == before.best.latency.reference_ms == 20.0
    with bench.database.read_session() as session:
        rows = session.exec(select(Trial).where(Trial.job_id == job_id)).all()
        entries = standings(rows, labelled=True, final=False)
    assert all(entry.latency_ms == pytest.approx(20 * entry.ratio.value) for entry in entries)
