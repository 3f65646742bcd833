"""The step state machine, on both databases."""

import threading
from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlmodel import Session
from sqlmodel import select

from infra import steps
from infra.clock import utcnow
from infra.counters import LEASES_EXPIRED
from infra.counters import counted
from infra.database.engine import Database
from infra.database.models import Job
from infra.database.models import Step
from infra.errors import InvalidModelError
from infra.errors import RunnerError
from infra.errors import StaleLeaseError
from infra.steps import ClaimedStep
from tests.helpers.rows import add_job


def new_step(database: Database, *, max_attempts: int = 3, key: str = "inspect", kind: str = "inspect") -> str:
    with database.write_session() as session:
        job = add_job(session)
        step = steps.create_step(
            session, job_id=job.id, kind=kind, key=key, queue="compute", payload={"a": 1}, max_attempts=max_attempts
        )
        return step.id


def claim(database: Database, step_id: str, lease_seconds: float = 60.0) -> ClaimedStep:
    with database.write_session() as session:
        claimed = steps.claim(session, step_id, "host/1", lease_seconds)
    assert claimed is not None
    return claimed


def read(database: Database, step_id: str) -> Step:
    with database.read_session() as session:
        return session.get_one(Step, step_id)


def make_due(database: Database, step_id: str) -> None:
    with database.write_session() as session:
        session.get_one(Step, step_id).not_before = None


def test_the_same_key_is_created_once(database: Database) -> None:
    with database.write_session() as session:
        job = add_job(session)
        job.priority = 8
        first = steps.create_step(session, job_id=job.id, kind="tick", key="tick:1", queue="search")
        again = steps.create_step(session, job_id=job.id, kind="tick", key="tick:1", queue="search", payload={"x": 1})
        other = steps.create_step(session, job_id=add_job(session).id, kind="tick", key="tick:1", queue="search")
    assert first.id == again.id
    assert again.payload == {}
    assert first.priority == 8
    assert other.id != first.id


def test_of_many_claims_at_once_one_wins(database: Database) -> None:
    step_id = new_step(database)
    barrier = threading.Barrier(8)
    won: list[ClaimedStep] = []

    def attempt() -> None:
        barrier.wait()
        with database.write_session() as session:
            claimed = steps.claim(session, step_id, "host/1", 60)
        if claimed is not None:
            won.append(claimed)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert won[0].payload == {"a": 1}
    assert read(database, step_id).attempt == 1


def reap(session: Session, dead_owners: Sequence[str] = ()) -> list[Step]:
    jobs = steps.jobs_to_reap(session, dead_owners=dead_owners)
    return [step for job_id in jobs for step in steps.reap(session, job_id, dead_owners=dead_owners)]


def test_finish_counts_once_and_only_with_the_current_lease(database: Database) -> None:
    step_id = new_step(database)
    stale = claim(database, step_id, lease_seconds=-1)
    with database.write_session() as session:
        assert [step.state for step in reap(session)] == ["queued"]
    current = claim(database, step_id)

    for attempt in (steps.release, steps.cancel):
        with pytest.raises(StaleLeaseError), database.write_session() as session:
            attempt(session, stale)

    def finish_late(session: Session) -> None:
        session.get_one(Job, stale.job_id).state = "failed"
        steps.finish(session, stale, {"from": "stale"})

    with pytest.raises(StaleLeaseError), database.write_session() as session:
        finish_late(session)
    with database.write_session() as session:
        assert steps.renew(session, stale, 60) == "lost"
        step = steps.finish(session, current, {"from": "current"})
        assert step.output == {"from": "current"}
    with pytest.raises(StaleLeaseError), database.write_session() as session:
        steps.finish(session, current, {"from": "again"})

    step = read(database, step_id)
    assert (step.state, step.output, step.attempt) == ("done", {"from": "current"}, 2)
    assert step.lease_token is None
    assert step.finished_at is not None
    with database.read_session() as session:
        assert session.get_one(Job, stale.job_id).state == "running"


def test_failures_are_retried_with_growing_delays_until_no_attempts_are_left(database: Database) -> None:
    step_id = new_step(database, max_attempts=3)
    delays = []
    for _ in range(2):
        claimed = claim(database, step_id)
        with database.write_session() as session:
            step = steps.fail(session, claimed, RunnerError("died"), retry_seconds=10)
            assert step.state == "queued"
            assert step.not_before is not None
            delays.append((step.not_before - utcnow()).total_seconds())
            assert steps.claim(session, step_id, "host/1", 60) is None  # not yet due
            assert steps.undispatched(session) == []
        make_due(database, step_id)
    claimed = claim(database, step_id)
    with database.write_session() as session:
        assert steps.fail(session, claimed, RunnerError("died again")).state == "failed"
    assert delays == [pytest.approx(10, abs=1), pytest.approx(20, abs=1)]
    step = read(database, step_id)
    assert step.error is not None
    assert step.error["message"] == "died again"
    with database.write_session() as session:
        assert steps.claim(session, step_id, "host/1", 60) is None


def test_a_user_error_is_not_retried(database: Database) -> None:
    step_id = new_step(database)
    claimed = claim(database, step_id)
    with database.write_session() as session:
        assert steps.fail(session, claimed, InvalidModelError("damaged"), retry=False).state == "failed"


def test_release_does_not_count_as_an_attempt(database: Database) -> None:
    step_id = new_step(database, max_attempts=1)
    for _ in range(3):
        claimed = claim(database, step_id)
        with database.write_session() as session:
            assert steps.release(session, claimed).state == "queued"
    assert claim(database, step_id).attempt == 1


def test_reaping_ends_a_step_that_kills_its_workers(database: Database) -> None:
    step_id = new_step(database, max_attempts=2)
    states = []
    for _ in range(2):
        claim(database, step_id, lease_seconds=-1)
        with database.write_session() as session:
            states += [step.state for step in reap(session)]
    assert states == ["queued", "failed"]
    step = read(database, step_id)
    assert step.error is not None
    assert step.error["code"] == "runner-failed"
    with database.write_session() as session:
        assert reap(session) == []


def test_expired_leases_are_counted_if_the_steps_were_taken_back(database: Database) -> None:
    step_id = new_step(database)
    claim(database, step_id, lease_seconds=-1)
    with database.write_session() as session:
        reap(session)
        assert counted(session, LEASES_EXPIRED) == 1
        session.rollback()
    for expected in (1, 2):
        with database.write_session() as session:
            assert len(reap(session)) == 1
            assert reap(session) == []
            assert counted(session, LEASES_EXPIRED) == expected
        claim(database, step_id, lease_seconds=-1)


def test_reaping_leaves_live_leases_alone(database: Database) -> None:
    step_id = new_step(database)
    claimed = claim(database, step_id, lease_seconds=-1)
    with database.write_session() as session:
        assert steps.renew(session, claimed, 60) == "held"
        assert reap(session) == []
        assert reap(session, dead_owners=["host/2"]) == []
        assert [step.id for step in reap(session, dead_owners=["host/1"])] == [step_id]


def test_cancel_reaches_queued_and_running_steps_but_not_exports(database: Database) -> None:
    with database.write_session() as session:
        job_id = add_job(session).id
        for kind in ("evaluate", "measure", "export"):
            steps.create_step(session, job_id=job_id, kind=kind, key=kind, queue="compute")
        claimed = [
            steps.claim(session, step.id, "host/1", 60)
            for step in session.exec(select(Step).where(Step.job_id == job_id))
            if step.kind != "evaluate"
        ]
        steps.cancel_steps(session, job_id)
    measure, export = (next(c for c in claimed if c is not None and c.kind == kind) for kind in ("measure", "export"))
    with database.write_session() as session:
        assert steps.renew(session, measure, 60) == "cancelled"
        assert steps.renew(session, export, 60) == "held"
    with pytest.raises(StaleLeaseError), database.write_session() as session:
        steps.finish(session, measure, {})
    with database.read_session() as session:
        states = {step.kind: step.state for step in session.exec(select(Step).where(Step.job_id == job_id))}
    assert states == {"evaluate": "cancelled", "measure": "cancelled", "export": "running"}


def test_a_cancel_request_is_seen_by_steps_that_are_older_than_it(database: Database) -> None:
    step_id = new_step(database)
    claimed = claim(database, step_id)

    def request(session: Session, seconds: float) -> None:
        session.get_one(Job, claimed.job_id).cancel_requested_at = utcnow() + timedelta(seconds=seconds)

    with database.write_session() as session:
        request(session, -60)
    with database.write_session() as session:
        assert steps.look(session, claimed) == "held"
        request(session, +1)
    with database.read_session() as session:
        assert steps.look(session, claimed) == "cancelled"


def test_what_is_undispatched_comes_by_priority_and_age(database: Database) -> None:
    with database.write_session() as session:
        job_id = add_job(session).id
        for key, priority in (("a", 1), ("b", 9), ("c", 9), ("d", 5)):
            steps.create_step(session, job_id=job_id, kind="tick", key=key, queue="search", priority=priority)
        later = utcnow() + timedelta(hours=1)
        steps.create_step(session, job_id=job_id, kind="tick", key="later", queue="search", not_before=later)
    with database.write_session() as session:
        due = steps.undispatched(session)
        assert [step.key for step in due] == ["b", "c", "d", "a"]
        steps.mark_dispatched(session, [step.id for step in due[:3]])
        assert [step.key for step in steps.undispatched(session)] == ["a"]
        assert steps.forget_dispatch(session, "search", older_than_seconds=60) == 0
        assert steps.forget_dispatch(session, "compute", older_than_seconds=-1) == 0
        assert steps.forget_dispatch(session, "search", older_than_seconds=-1) == 3
        assert len(steps.undispatched(session)) == 4
