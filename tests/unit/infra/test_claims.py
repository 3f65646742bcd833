"""Workers are shared fairly, by priority, and within quotas; on both databases."""

import random
import threading
from collections import Counter
from datetime import timedelta

from sqlmodel import Session
from sqlmodel import select

from infra import claims
from infra import steps
from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import ApiKey
from infra.database.models import Step
from infra.steps import ClaimedStep
from tests.helpers.rows import add_job


def add_steps(session: Session, count: int, *, owner: str = "owner", priority: int = 5, queue: str = "compute") -> str:
    """Add a job with some queued steps; returns its id."""
    job = add_job(session, owner=owner)
    for number in range(count):
        steps.create_step(session, job_id=job.id, kind="test", key=f"{number}", queue=queue, priority=priority)
    return job.id


def any_step(database: Database, job_id: str) -> str:
    with database.read_session() as session:
        return session.exec(select(Step.id).where(Step.job_id == job_id)).first() or ""


def claim(database: Database, hint: str, keep_job: str | None = None) -> ClaimedStep | None:
    with database.write_session() as session:
        return claims.claim_next(session, hint, "host/1", 60.0, keep_job=keep_job)


def finish(database: Database, claimed: ClaimedStep) -> None:
    with database.write_session() as session:
        steps.finish(session, claimed, {})
        claims.wake_limited(session, claimed)


def claim_all(database: Database, hint: str) -> list[ClaimedStep]:
    found = []
    while (claimed := claim(database, hint)) is not None:
        found.append(claimed)
    return found


def test_a_large_job_does_not_starve_a_small_one(database: Database) -> None:
    with database.write_session() as session:
        large, small = add_steps(session, 1000), add_steps(session, 10)
    hint = any_step(database, large)
    generator = random.Random(0)
    working: list[ClaimedStep] = []
    order: list[str] = []
    while order.count(small) < 10:
        while len(working) < 4:
            claimed = claim(database, hint)
            assert claimed is not None
            working.append(claimed)
            order.append(claimed.job_id)
        finish(database, working.pop(generator.randrange(len(working))))
    assert len(order) <= 24  # half of the workers, and some luck with who finishes


def test_one_worker_takes_turns(database: Database) -> None:
    with database.write_session() as session:
        jobs = [add_steps(session, 5) for _ in range(3)]
    order = []
    for _ in range(15):
        claimed = claim(database, any_step(database, jobs[0]))
        assert claimed is not None
        order.append(claimed.job_id)
        finish(database, claimed)
    assert all(set(order[start : start + 3]) == set(jobs) for start in range(0, 15, 3))


def test_a_key_gains_nothing_by_many_jobs(database: Database) -> None:
    with database.write_session() as session:
        many = [add_steps(session, 10, owner="many") for _ in range(9)]
        add_steps(session, 10, owner="one")
    hint = any_step(database, many[0])
    taken = [claim(database, hint) for _ in range(8)]
    assert sum(step is not None and step.job_id in many for step in taken) == 4
    assert len({step.job_id for step in taken if step is not None and step.job_id in many}) == 4


def test_priority_comes_before_fairness(database: Database) -> None:
    with database.write_session() as session:
        ordinary = add_steps(session, 3)
        urgent = add_steps(session, 3, priority=9)
    hint = any_step(database, ordinary)
    assert [step.job_id for step in claim_all(database, hint)] == [urgent] * 3 + [ordinary] * 3


def test_a_worker_stays_with_a_job_for_its_turn_but_not_before_a_higher_priority(database: Database) -> None:
    with database.write_session() as session:
        first, _second = add_steps(session, 3), add_steps(session, 3)
    hint = any_step(database, first)
    for _ in range(2):
        claimed = claim(database, hint, keep_job=first)
        assert claimed is not None
        assert claimed.job_id == first
    with database.write_session() as session:
        urgent = add_steps(session, 1, priority=6)
    claimed = claim(database, hint, keep_job=first)
    assert claimed is not None
    assert claimed.job_id == urgent


def test_only_steps_of_the_same_queue_that_are_due_are_taken(database: Database) -> None:
    with database.write_session() as session:
        job = add_steps(session, 2)
        add_steps(session, 2, queue="search")
        later = session.exec(select(Step).where(Step.job_id == job)).first()
        assert later is not None
        later.not_before = utcnow() + timedelta(hours=1)
        session.add(later)
    taken = claim_all(database, later.id)
    assert [(step.queue, step.id != later.id) for step in taken] == [("compute", True)]
    assert claim(database, "no such step") is None


def test_a_key_has_no_more_workers_than_it_may_have(database: Database) -> None:
    with database.write_session() as session:
        key = ApiKey(name="limited", prefix="p", secret_hash="h", max_workers=2)
        session.add(key)
        session.flush()
        limited, other = add_steps(session, 5, owner=key.id), add_steps(session, 3)
        steps.mark_dispatched(session, list(session.exec(select(Step.id))))
    taken = claim_all(database, any_step(database, limited))
    assert Counter(step.job_id for step in taken) == {limited: 2, other: 3}
    with database.read_session() as session:
        assert steps.undispatched(session) == []
    finish(database, next(step for step in taken if step.job_id == other))
    with database.read_session() as session:
        assert steps.undispatched(session) == []
    finish(database, next(step for step in taken if step.job_id == limited))
    with database.read_session() as session:
        woken = steps.undispatched(session)
    assert [step.job_id for step in woken] == [limited]
    assert [step.job_id for step in claim_all(database, woken[0].id)] == [limited]


def test_claims_at_once_take_different_steps_and_keep_to_the_quota(database: Database) -> None:
    with database.write_session() as session:
        key = ApiKey(name="limited", prefix="p", secret_hash="h", max_workers=3)
        session.add(key)
        session.flush()
        job = add_steps(session, 12, owner=key.id)
    hint = any_step(database, job)
    barrier = threading.Barrier(8)
    won: list[ClaimedStep] = []

    def attempt() -> None:
        barrier.wait()
        if (claimed := claim(database, hint)) is not None:
            won.append(claimed)

    threads = [threading.Thread(target=attempt) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({step.id for step in won}) == len(won) == 3
