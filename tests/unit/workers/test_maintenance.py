"""The maintenance loop brings back what was lost, ends what is hopeless, and removes what is over."""

import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session
from sqlmodel import select

from infra import steps
from infra.clock import utcnow
from infra.database.clock import database_now
from infra.database.engine import Database
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.settings import load_settings
from search.job_clock import LONGEST_GAP
from search.job_clock import PATIENCE
from tests.helpers.rows import add_job
from workers.maintenance import Maintenance
from workers.stage import StageContext
from workers.stages.inspect import InspectStage


class NotingStage:
    kind = "test"

    def __init__(self) -> None:
        self.errors: list[ParetuneError] = []

    def work(self, context: StageContext) -> JsonObject:
        return {}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Never called here."""

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        session.get_one(Job, step.job_id).state = "failed"
        self.errors.append(error)


@pytest.fixture
def stage() -> NotingStage:
    return NotingStage()


@pytest.fixture
def maintenance(database: Database, database_url: str, tmp_path: Path, stage: NotingStage) -> Iterator[Maintenance]:
    settings = load_settings(home=tmp_path, database_url=database_url, embedded=True)
    maintenance = Maintenance(settings, {"test": stage})
    yield maintenance
    maintenance.close()


def running_step(database: Database, owner: str, *, lease_seconds: float = 3600, max_attempts: int = 3) -> str:
    with database.write_session() as session:
        job = add_job(session)
        step = steps.create_step(
            session, job_id=job.id, kind="test", key="k", queue="compute", max_attempts=max_attempts
        )
        assert steps.claim(session, step.id, owner, lease_seconds) is not None
        return step.id


def state(database: Database, step_id: str) -> str:
    with database.read_session() as session:
        return session.get_one(Step, step_id).state


def test_leases_of_dead_processes_of_this_host_are_taken_back_at_once(
    database: Database, maintenance: Maintenance
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    expected = {
        running_step(database, f"{host}/{dead.pid}"): "queued",
        running_step(database, f"{host}/{os.getpid()}"): "running",
        running_step(database, f"another-host/{dead.pid}"): "running",
        running_step(database, "another-host/1", lease_seconds=-1): "queued",
    }
    assert maintenance.reap() == 2
    assert {step_id: state(database, step_id) for step_id in expected} == expected


def test_a_step_without_attempts_left_fails_its_job_through_its_stage(
    database: Database, maintenance: Maintenance, stage: NotingStage
) -> None:
    step_id = running_step(database, "another-host/1", lease_seconds=-1, max_attempts=1)
    maintenance.reap()
    assert state(database, step_id) == "failed"
    assert [error.code for error in stage.errors] == ["runner-failed"]
    with database.read_session() as session:
        assert session.exec(select(Job.state)).one() == "failed"


def test_jobs_are_woken_once_until_somebody_looked(database: Database, maintenance: Maintenance) -> None:
    with database.write_session() as session:
        busy = ("working", "searching", "beginning", "learning", "abandoned", "training")
        jobs = {name: add_job(session).id for name in ("stuck", "over", *busy)}
        for name in busy:
            steps.create_step(session, job_id=jobs[name], kind="test", key="k", queue="compute")
        session.get_one(Job, jobs["searching"]).stage = "search"
        session.get_one(Job, jobs["beginning"]).stage = "baselines"
        session.get_one(Job, jobs["learning"]).stage = "options"
        session.get_one(Job, jobs["abandoned"]).stage = "finalise"
        session.get_one(Job, jobs["abandoned"]).idle_seconds = 601
        session.get_one(Job, jobs["training"]).stage = "recover"
        session.get_one(Job, jobs["over"]).state = "succeeded"
    for _ in range(2):
        maintenance.wake_jobs()
    with database.read_session() as session:
        woken = session.exec(select(Step.job_id).where(Step.kind == "tick")).all()
    assert sorted(woken) == sorted(jobs[name] for name in ("stuck", "searching", "beginning", "learning", "abandoned"))


def test_the_time_of_jobs_counts_only_while_the_service_runs(database: Database, maintenance: Maintenance) -> None:
    with database.write_session() as session:
        jobs = {seconds: add_job(session) for seconds in (40, 36_000)}
        for seconds, job in jobs.items():
            job.started_at = utcnow() - timedelta(seconds=seconds)
        ids = {seconds: job.id for seconds, job in jobs.items()}
    maintenance.wake_jobs()
    with database.read_session() as session:
        found = {seconds: session.get_one(Job, job_id) for seconds, job_id in ids.items()}
        assert found[40].active_seconds == pytest.approx(40, abs=5)
        assert found[36_000].active_seconds == LONGEST_GAP
        assert all(job.idle_seconds == job.active_seconds for job in found.values())


def test_work_directories_go_with_their_jobs(database: Database, maintenance: Maintenance, tmp_path: Path) -> None:
    with database.write_session() as session:
        jobs = {name: add_job(session).id for name in ("running", "over", "just over", "exporting")}
        for name in ("over", "just over", "exporting"):
            session.get_one(Job, jobs[name]).state = "cancelled"
        for name, minutes in (("over", 10), ("just over", 1), ("exporting", 10)):
            step = steps.create_step(session, job_id=jobs[name], kind="test", key="k", queue="compute")
            step.state = "done"
            step.finished_at = utcnow() - timedelta(minutes=minutes)
        steps.create_step(session, job_id=jobs["exporting"], kind="export", key="export", queue="compute")
    for name in (*jobs.values(), "unknown"):
        (tmp_path / "work" / name / "deep").mkdir(parents=True)
    assert maintenance.remove_workdirs() == 2
    assert {path.name for path in (tmp_path / "work").iterdir()} == {
        jobs["running"],
        jobs["just over"],
        jobs["exporting"],
    }


def test_a_duty_that_fails_keeps_no_other_from_its_own(database: Database, maintenance: Maintenance) -> None:
    step_id = running_step(database, "another-host/1", lease_seconds=-1)
    with database.write_session() as session:
        session.get_one(Step, step_id).created_at = utcnow() - timedelta(days=1)
    maintenance.run_due()  # there is no broker
    assert state(database, step_id) == "queued"
    assert not (maintenance._settings.work).exists()


def test_queued_jobs_say_once_that_no_worker_serves_them(
    database: Database, maintenance: Maintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[str]:
        with database.read_session() as session:
            events = session.exec(select(Event).where(Event.kind == "notice")).all()
        return [event.job_id for event in events if "the queue 'compute'" in event.payload["message"]]

    with database.write_session() as session:
        now = database_now(session)
        jobs = {name: add_job(session, state="queued").id for name in ("old", "new", "other")}
        for name in ("old", "new"):
            step = steps.create_step(session, job_id=jobs[name], kind="inspect", key="inspect", queue="compute")
            step.created_at = now - timedelta(seconds=PATIENCE + 60) if name == "old" else now + timedelta(hours=1)
        step = steps.create_step(session, job_id=jobs["other"], kind="evaluate", key="e", queue="compute")
        step.state = "running"
        other_id = step.id
    looks = itertools.count()
    monkeypatch.setattr("workers.maintenance.database_now", lambda _: now + timedelta(seconds=60 * next(looks)))
    assert sum(maintenance.tell_queued_jobs() for _ in range(15)) == 0, "a worker is at a step of the queue"
    with database.write_session() as session:
        step = session.get_one(Step, other_id)
        step.state, step.finished_at = "cancelled", now
    assert sum(maintenance.tell_queued_jobs() for _ in range(10)) == 0, "nobody has looked for so long"
    assert [maintenance.tell_queued_jobs() for _ in range(3)] == [1, 0, 0]
    assert told() == [jobs["old"]]
    with database.write_session() as session:
        step = session.exec(select(Step).where(Step.job_id == jobs["old"])).one()
        claimed = steps.claim(session, step.id, "somebody", 60)
        assert claimed is not None
        InspectStage().finish(session, step, {})
        assert session.get_one(Job, jobs["old"]).idle_seconds == 0
