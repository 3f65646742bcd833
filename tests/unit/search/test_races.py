"""Several workers at once, on PostgreSQL: there, transactions really overlap."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from search import coordinator
from tests.helpers.databases import postgresql_server as postgresql_server
from tests.helpers.databases import postgresql_url as postgresql_url
from tests.unit.search.synthetic import Bench


@pytest.fixture
def postgresql_bench(postgresql_url):
    database = Database(postgresql_url)
    yield Bench(database)
    database.dispose()


def test_ticks_and_results_at_the_same_moment_lose_and_repeat_nothing(postgresql_bench):
    bench = postgresql_bench
    job_id = bench.submit(budget={"seconds": None, "trials": 16})
    with bench.database.write_session() as session:
        plan = coordinator.propose(session, session.get(Job, job_id), bench.now, in_flight=4)
    assert len(plan.trials) == 4

    def commit(_):
        with bench.database.write_session() as session:
            coordinator.commit(session, session.get(Job, job_id), plan, bench.now, in_flight=4)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(commit, range(4)))
        trials = bench.trials(job_id)
        assert [t.number for t in trials] == list(range(6))
        assert len({t.digest for t in trials}) == 6

        with bench.database.read_session() as session:
            steps = session.exec(select(Step).where(Step.kind == "evaluate")).all()
        list(pool.map(lambda step: bench.execute(step.id), steps))
        with bench.database.read_session() as session:
            measures = session.exec(select(Step).where(Step.kind == "measure")).all()
            assert len(measures) == 6
        list(pool.map(lambda step: bench.execute(step.id), measures))

    with bench.database.read_session() as session:
        waiting = session.exec(select(Step).where(Step.kind == "tick", Step.state == "queued")).all()
        states = session.exec(select(Trial.state).where(Trial.job_id == job_id)).all()
    assert len(waiting) == 1
    assert states.count("complete") == 6
    job = bench.run(job_id)
    assert job.state == "succeeded"
    assert sum(t.source != "baseline" for t in bench.trials(job_id)) == 16


def test_a_tick_that_thought_in_the_search_does_not_end_the_recovery_that_began_meanwhile(bench):
    job_id = bench.submit(goal={"max_drop": 0.01}, budget={"seconds": None, "trials": 12}, recover={"seconds": 400})
    stale = run_until(bench, job_id, "recover")
    assert (stale.stage, stale.shapes) == ("search", [])
    with bench.database.write_session() as session:
        coordinator.commit(session, session.get(Job, job_id), stale, bench.now)
    with bench.database.read_session() as session:
        assert (session.get(Job, job_id).prepared["recovery"]).get("shapes") is None
    assert bench.run(job_id).state == "succeeded"
    assert any(trial.source == "recovery" for trial in bench.trials(job_id))


def test_a_tick_that_thought_among_the_baselines_does_not_end_the_search_that_began_meanwhile(bench):
    job_id = bench.submit(strategy="guided", goal={"max_drop": 0.01}, budget={"seconds": None, "trials": 12})
    stale = run_until(bench, job_id, "search", of="baselines")
    assert (stale.stage, stale.exhausted) == ("baselines", True)
    with bench.database.write_session() as session:
        coordinator.commit(session, session.get(Job, job_id), stale, bench.now)
    with bench.database.read_session() as session:
        assert session.get(Job, job_id).stage == "search"
    bench.run(job_id)
    assert sum(trial.source != "baseline" for trial in bench.trials(job_id)) == 12


def run_until(bench, job_id, stage, of="search"):
    """Bring the job to a stage; return what the last tick in the stage ``of`` thought out."""
    plan = None
    while True:
        with bench.database.read_session() as session:
            job = session.get(Job, job_id)
            if job.stage == of:
                plan = coordinator.propose(session, job, bench.now)
        if job.stage == stage:
            return plan
        bench.run(job_id, most=1)
