"""What a process keeps of a job's rows saves time and changes nothing."""

import pytest
from sqlmodel import select

from infra.database.models import Job
from infra.database.models import Trial
from search import records
from search.job_context import job_context
from search.lifecycle import end_trial
from search.records import job_records


@pytest.fixture
def job_id(bench):
    job_id = bench.submit(budget={"seconds": None, "trials": 12})
    bench.run(job_id)
    return job_id


def fresh(bench, job_id):
    """The records as a process that remembers nothing reads them."""
    kept = dict(records._histories)
    records._histories.clear()
    with bench.database.read_session() as session:
        found = job_records(session, job_id, labelled=True)
    records._histories.clear()
    records._histories.update(kept)
    return found


def test_of_trials_that_have_ended_nothing_is_read_again(bench, job_id):
    records._histories.clear()
    with bench.database.read_session() as session:
        first = job_records(session, job_id, labelled=True)
    assert len(records._histories[job_id, True].settled) == len(first) > 12
    with bench.database.read_session() as session:
        assert job_records(session, job_id, labelled=True) == first == fresh(bench, job_id)


def test_an_end_that_was_rolled_back_is_not_remembered(bench, job_id):
    with bench.database.write_session() as session:
        trial = session.exec(select(Trial).where(Trial.job_id == job_id, Trial.number == 5)).one()
        trial.state, trial.finished_at = "evaluated", None
    records._histories.clear()
    with bench.database.write_session() as session:
        end_trial(session, session.get_one(Trial, trial.id), "failed")
        assert job_records(session, job_id, labelled=True)[5].outcome == "failed"
        session.rollback()
    with bench.database.read_session() as session:
        assert job_records(session, job_id, labelled=True)[5].outcome == "running"
    with bench.database.write_session() as session:
        end_trial(session, session.get_one(Trial, trial.id), "complete")
        session.flush()
        assert job_records(session, job_id, labelled=True)[5].outcome == "done"
    with bench.database.read_session() as session:
        assert job_records(session, job_id, labelled=True) == fresh(bench, job_id)


def test_the_time_of_a_model_that_is_not_fused_teaches_nothing(bench, job_id):
    counted = {"expected": {"norms": 5}, "found": {"norms": 4}, "reference_expected": {}, "reference_found": {}}
    with bench.database.write_session() as session:
        rows = session.exec(select(Trial).where(Trial.job_id == job_id, Trial.state == "complete")).all()
        trial = next(trial for trial in rows if trial.source != "baseline")
        trial.measurement = trial.measurement | {"fusions": counted}
        session.add(trial)
        number = trial.number
    record = fresh(bench, job_id)[number]
    assert (record.outcome, record.ratio) == ("failed", None)
    assert record.drop is not None


def test_a_trial_under_way_holds_back_only_what_comes_after_it(bench, job_id):
    with bench.database.write_session() as session:
        trial = session.exec(select(Trial).where(Trial.job_id == job_id, Trial.number == 5)).one()
        ended, trial.finished_at, trial.state = trial.finished_at, None, "evaluated"
    records._histories.clear()
    with bench.database.read_session() as session:
        before = job_records(session, job_id, labelled=True)
        assert job_records(session, job_id, labelled=True) == before
    assert len(records._histories[job_id, True].settled) == 5
    with bench.database.write_session() as session:
        trial = session.get_one(Trial, trial.id)
        trial.finished_at, trial.state = ended, "complete"
    with bench.database.read_session() as session:
        assert [record.outcome for record in job_records(session, job_id, labelled=True)] == ["done"] * len(before)
    assert len(records._histories[job_id, True].settled) == len(before)


def test_a_context_is_parsed_again_when_the_row_changes(bench, job_id):
    def context():
        with bench.database.read_session() as session:
            return job_context(session.get_one(Job, job_id))

    first = context()
    assert context() is first
    with bench.database.write_session() as session:
        job = session.get_one(Job, job_id)
        job.prepared = job.prepared | {"labelled": not first.prepared.labelled}
    assert context().prepared.labelled is not first.prepared.labelled
    with bench.database.write_session() as session:
        job = session.get_one(Job, job_id)
        job.request = job.request | {"seed": 77}
    assert context().request.seed == 77
