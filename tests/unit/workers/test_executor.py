"""One step through a worker: claimed, done in a runner, finished once; and everything that can come between."""

import signal
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session
from sqlmodel import select

from infra import steps
from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import Device
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import InvalidDatasetError
from infra.errors import ParetuneError
from infra.errors import UnavailableError
from infra.queue import StepQueue
from infra.settings import Settings
from infra.settings import load_settings
from profilers.host_lock import HostLock
from tests.helpers.processes import gone
from tests.helpers.rows import add_job
from workers import host_share
from workers import shutdown
from workers.executor import StepExecutor
from workers.stage import Stage
from workers.stage import StageContext

REGISTRY = "tests.unit.workers.operations"


class FakeStage:
    """A stage whose work is a function; it notes what happened to it."""

    kind = "test"

    def __init__(self, work: Callable[[StageContext], JsonObject]) -> None:
        self._work = work
        self.finished: list[JsonObject] = []
        self.errors: list[ParetuneError] = []

    def work(self, context: StageContext) -> JsonObject:
        return self._work(context)

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        self.finished.append(output)
        steps.create_step(session, job_id=step.job_id, kind="next", key="next", queue="search")

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        self.errors.append(error)
        session.get_one(Job, step.job_id).stage = "the stage failed it"


class Bench:
    """A database with one step, and workers to do it."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.settings = settings
        self.executors: list[StepExecutor] = []

    def step(self, *, queue: str = "compute", max_attempts: int = 3, job: Job | None = None, key: str = "k") -> str:
        with self.database.write_session() as session:
            job = job or add_job(session)
            return steps.create_step(
                session, job_id=job.id, kind="test", key=key, queue=queue, max_attempts=max_attempts
            ).id

    def worker(self, stage: Stage, **overrides: object) -> StepExecutor:
        settings = self.settings.model_copy(update=overrides)
        executor = StepExecutor(settings, {"test": stage}, StepQueue(settings), REGISTRY)
        self.executors.append(executor)
        return executor

    def row(self, step_id: str) -> Step:
        with self.database.read_session() as session:
            return session.get_one(Step, step_id)

    def job(self, step_id: str) -> Job:
        with self.database.read_session() as session:
            return session.get_one(Job, session.get_one(Step, step_id).job_id)

    def notices(self) -> list[str]:
        with self.database.read_session() as session:
            return [event.payload["message"] for event in session.exec(select(Event).where(Event.kind == "notice"))]


@pytest.fixture
def bench(database: Database, database_url: str, tmp_path: Path) -> Iterator[Bench]:
    settings = load_settings(
        home=tmp_path, database_url=database_url, host_lock_directory=tmp_path, retry_seconds=0.01, shutdown_seconds=0.2
    )
    bench = Bench(database, settings)
    yield bench
    for executor in bench.executors:
        executor.close()


def test_a_step_is_done_once_however_often_its_message_arrives(bench: Bench) -> None:
    stage = FakeStage(lambda context: context.runner("compute").call("echo", {"step": context.step.key}))
    step_id = bench.step()
    worker = bench.worker(stage)
    assert worker.run(step_id)
    assert not worker.run(step_id)
    assert not bench.worker(stage).run(step_id)
    assert len(stage.finished) == 1
    row = bench.row(step_id)
    assert row.state == "done"
    assert row.output == stage.finished[0]
    assert row.output["echo"] == {"step": "k"}
    with bench.database.read_session() as session:
        assert [step.key for step in session.exec(select(Step).where(Step.kind == "next"))] == ["next"]
        assert len(list(session.exec(select(Event).where(Event.kind == "progress")))) == 1  # 3 within half a second


def test_a_runner_that_dies_is_replaced_until_the_attempts_are_used_up(bench: Bench) -> None:
    stage = FakeStage(lambda context: context.runner("compute").call("die", {"signal": signal.SIGKILL}))
    step_id = bench.step(max_attempts=2)
    worker = bench.worker(stage)
    for _ in range(2):
        assert not worker.run(step_id)
        time.sleep(0.05)
    assert not worker.run(step_id)
    row = bench.row(step_id)
    assert (row.state, row.attempt) == ("failed", 2)
    assert [error.code for error in stage.errors] == ["runner-failed"]
    assert "out of memory" in stage.errors[0].message
    assert len(bench.notices()) == 1
    assert bench.job(step_id).stage == "the stage failed it"


def test_the_users_mistake_fails_at_once(bench: Bench) -> None:
    def work(_context: StageContext) -> JsonObject:
        raise InvalidDatasetError("There is no column 'text'.")

    stage = FakeStage(work)
    step_id = bench.step()
    bench.worker(stage).run(step_id)
    assert bench.row(step_id).state == "failed"
    assert [error.code for error in stage.errors] == ["invalid-dataset"]


def test_a_failure_that_the_stage_cannot_handle_fails_the_job(bench: Bench) -> None:
    class BrokenStage(FakeStage):
        def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
            session.get_one(Job, step.job_id).state = "nonsense"
            session.flush()
            raise KeyError("bug")

    def work(_context: StageContext) -> JsonObject:
        raise ValueError("bug")

    step_id = bench.step(max_attempts=1)
    bench.worker(BrokenStage(work)).run(step_id)
    job = bench.job(step_id)
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["message"] == "ValueError: bug"


def test_an_error_while_finishing_undoes_what_was_written(bench: Bench) -> None:
    class BrokenStage(FakeStage):
        def finish(self, session: Session, step: Step, output: JsonObject) -> None:
            session.get_one(Job, step.job_id).stage = "half done"
            session.flush()
            raise KeyError("bug")

    step_id = bench.step()
    assert not bench.worker(BrokenStage(lambda _: {})).run(step_id)
    assert bench.job(step_id).stage == "queued"
    assert bench.row(step_id).state == "queued"


def test_what_is_away_for_the_moment_does_not_count_as_an_attempt(bench: Bench) -> None:
    def work(_context: StageContext) -> JsonObject:
        raise UnavailableError("The disk is full.")

    step_id = bench.step(max_attempts=1)
    bench.worker(FakeStage(work)).run(step_id)
    row = bench.row(step_id)
    assert (row.state, row.attempt) == ("queued", 0)
    assert row.not_before is not None
    assert row.not_before > utcnow()
    assert bench.notices() == ["The disk is full."]


def test_waiting_grows_longer_and_is_said_once_and_its_end_as_well(bench: Bench) -> None:
    full = [True, True, True, False]

    def work(_context: StageContext) -> JsonObject:
        if full.pop(0):
            raise UnavailableError("The disk is full.")
        return {}

    step_id = bench.step(max_attempts=1)
    worker = bench.worker(FakeStage(work))
    waits = []
    while full:
        worker.run(step_id)
        with bench.database.write_session() as session:
            step = session.get_one(Step, step_id)
            if step.not_before is not None:
                waits.append((step.not_before - utcnow()).total_seconds())
                step.not_before = None
    assert waits == pytest.approx([5.0, 10.0, 20.0], abs=2.0)
    assert bench.notices() == ["The disk is full.", "What was missing is back."]
    row = bench.row(step_id)
    assert (row.state, row.attempt, row.error) == ("done", 1, None)


def test_an_outcome_waits_for_a_database_that_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step's result is there when the database goes: it must not be computed again."""
    step_id = bench.step(max_attempts=1)
    stage = FakeStage(lambda _: {"done": True})
    worker = bench.worker(stage)
    finish, failures = worker._finish, [True, True]

    def unlucky(*arguments: Any) -> None:
        if failures and failures.pop():
            raise UnavailableError("The database is not available.")
        finish(*arguments)

    monkeypatch.setattr(worker, "_finish", unlucky)
    assert worker.run(step_id)
    row = bench.row(step_id)
    assert (row.state, row.attempt) == ("done", 1)
    assert bench.notices() == []


def test_a_cancel_stops_the_runner_within_seconds(bench: Bench) -> None:
    step_id = bench.step()
    pids = bench.settings.work / bench.job(step_id).id / "pids"
    stage = FakeStage(lambda context: context.runner("compute").call("spawn_and_hang", {"pids": str(pids)}))

    def cancel() -> None:
        while not (pids.exists() and pids.read_text()):
            time.sleep(0.05)
        with bench.database.write_session() as session:
            session.get_one(Job, session.get_one(Step, step_id).job_id).cancel_requested_at = utcnow()

    canceller = threading.Thread(target=cancel)
    canceller.start()
    started = time.monotonic()
    bench.worker(stage).run(step_id)
    canceller.join()
    assert time.monotonic() - started < 10
    assert bench.row(step_id).state == "cancelled"
    assert stage.finished == stage.errors == []
    assert all(gone(int(pid)) for pid in pids.read_text().split())


def test_a_result_that_comes_after_the_lease_was_taken_over_is_thrown_away(bench: Bench) -> None:
    step_id = bench.step()
    second = FakeStage(lambda _: {"from": "second"})

    def work(_context: StageContext) -> JsonObject:
        with bench.database.write_session() as session:
            session.get_one(Step, step_id).lease_expires_at = utcnow()
        with bench.database.write_session() as session:
            assert len(steps.reap(session, bench.job(step_id).id)) == 1
        assert bench.worker(second).run(step_id)
        return {"from": "first"}

    first = FakeStage(work)
    assert not bench.worker(first, lease_seconds=3600).run(step_id)
    assert first.finished == []
    assert second.finished == [{"from": "second"}]
    assert bench.row(step_id).output == {"from": "second"}


def test_the_lease_is_kept_while_the_work_takes_longer_than_it(bench: Bench) -> None:
    reaped = []

    def work(_context: StageContext) -> JsonObject:
        for _ in range(18):
            time.sleep(0.25)
            with bench.database.write_session() as session:
                reaped.extend(steps.reap(session, bench.job(step_id).id))
        return {}

    step_id = bench.step()
    assert bench.worker(FakeStage(work), lease_seconds=3).run(step_id)
    assert reaped == []


def test_a_worker_that_stops_hands_its_step_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = FakeStage(lambda context: context.runner("compute").call("hang", {}))
    step_id = bench.step()
    monkeypatch.setattr(shutdown, "requested", lambda: bench.row(step_id).state == "running")
    started = time.monotonic()
    bench.worker(stage).run(step_id)
    assert time.monotonic() - started < 10
    row = bench.row(step_id)
    assert (row.state, row.attempt, row.lease_token) == ("queued", 0, None)
    assert stage.errors == []


def test_a_device_measures_one_thing_at_a_time(bench: Bench) -> None:
    with bench.database.write_session() as session:
        first_job = add_job(session)
        device = session.get_one(type(first_job), first_job.id).device_id
        second_job = add_job(session)
        second_job.device_id = device
    first, second = (bench.step(queue="device.cpu", job=job) for job in (first_job, second_job))
    refused = []

    def work(_context: StageContext) -> JsonObject:
        refused.append(bench.worker(FakeStage(lambda _: {}), host_lock_directory=bench.settings.home / "x").run(second))
        return {}

    assert bench.worker(FakeStage(work)).run(first)
    assert refused == [False]
    row = bench.row(second)
    assert (row.state, row.attempt, row.dispatched_at) == ("queued", 0, None)
    with bench.database.write_session() as session:
        session.get_one(Step, second).not_before = None
    assert bench.worker(FakeStage(lambda _: {})).run(second)


def test_a_device_that_no_worker_has_looked_at_is_described_before_its_first_step(bench: Bench) -> None:
    with bench.database.write_session() as session:
        job = add_job(session)
    seen: list[JsonObject] = []

    def work(context: StageContext) -> JsonObject:
        with context.read_session() as session:
            device = session.exec(select(Device).join(Job).where(Job.id == job.id)).one()
            seen.append(device.capabilities | device.facts)
        return {}

    assert bench.worker(FakeStage(work)).run(bench.step(queue="device.cpu", job=job))
    (found,) = seen
    assert found["available"]
    assert found["cpu"]


def test_nothing_computes_while_this_host_measures(bench: Bench) -> None:
    step_id = bench.step(queue="compute")
    stage = FakeStage(lambda _: {"at": time.monotonic()})
    worker = threading.Thread(target=bench.worker(stage).run, args=[step_id])
    with HostLock(bench.settings.host_lock_directory).exclusive():
        worker.start()
        deadline = time.monotonic() + 20
        while bench.row(step_id).state != "running":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        measured_until = time.monotonic()
    worker.join()
    assert stage.finished[0]["at"] >= measured_until


def test_long_work_makes_way_for_a_measurement_and_goes_on(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_share, "SLICE_SECONDS", 0.3)
    step_id = bench.step(queue="compute")

    def work(context: StageContext) -> JsonObject:
        return context.runner("compute").call("beat", {"path": str(context.workdir / "beats"), "seconds": 6.0})

    stage = FakeStage(work)
    worker = threading.Thread(target=bench.worker(stage).run, args=[step_id])
    worker.start()
    beats = bench.settings.work / bench.job(step_id).id / "beats"
    while not (beats.exists() and beats.stat().st_size > 5):
        time.sleep(0.05)
    with HostLock(bench.settings.host_lock_directory).exclusive(timeout=20):
        assert bench.row(step_id).state == "running"
        before = beats.stat().st_size
        time.sleep(3.0)
        assert beats.stat().st_size == before
    worker.join()
    row = bench.row(step_id)
    assert (row.state, row.attempt) == ("done", 1)
    assert beats.stat().st_size > before
    assert row.output is not None
    assert row.output["active"] < row.output["passed"] - 2.0
