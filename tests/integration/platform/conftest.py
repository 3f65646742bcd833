"""A real broker, real workers and a real database."""

import os
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import select

from infra.database import migrate
from infra.database.engine import Database
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.embedded.home import prepare_home
from infra.embedded.process import ManagedProcess
from infra.embedded.valkey import valkey_process
from infra.queue import StepQueue
from infra.settings import Settings
from infra.settings import load_settings
from infra.steps import create_step
from tests.helpers.databases import database_url as database_url
from tests.helpers.databases import postgresql_server as postgresql_server
from tests.helpers.databases import postgresql_url as postgresql_url
from tests.helpers.rows import add_job
from workers.maintenance import Maintenance
from workers.stages import STAGES


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s")
        time.sleep(0.02)


class Cluster:
    """Broker, maintenance loop and as many workers as a test starts, over one database."""

    def __init__(self, database: Database, settings: Settings, tmp_path: Path) -> None:
        self.database = database
        self.settings = settings
        self.tmp_path = tmp_path
        self.queue = StepQueue(settings)
        self.broker = valkey_process(settings)
        self.maintenance = Maintenance(settings, STAGES)
        self._processes = [self.broker]
        self._stop = threading.Event()
        self._loop = threading.Thread(target=self.maintenance.run, args=[self._stop])

    def start(self) -> None:
        self.start_broker()
        self._loop.start()

    def start_broker(self) -> None:
        self.broker.start()
        assert self.broker.wait_ready(10)

    def stop(self) -> None:
        self._stop.set()
        self._loop.join()
        self.maintenance.close()
        for process in reversed(self._processes):
            process.kill()
        self.database.dispose()

    def start_worker(self, queues: str = "compute", **overrides: object) -> ManagedProcess:
        settings = self.settings.model_copy(update=overrides)
        name = f"worker{len(self._processes)}"
        node = f"{name}@test"
        worker = ManagedProcess(
            name,
            [
                *(sys.executable, "-m", "celery", "-A", "tests.integration.platform.worker_app", "worker"),
                *("-Q", queues, "-n", node, "--concurrency", "1", "--without-gossip", "--without-mingle"),
            ],
            environment={**os.environ, **settings.environment(), "PYTHONPATH": os.getcwd()},  # noqa: PTH109
            log=self.tmp_path / f"{name}.log",
            ready=lambda: bool(self.queue.app.control.ping(destination=[node], timeout=0.3)),
        )
        self._processes.append(worker)
        worker.start()
        assert worker.wait_ready(60), (self.tmp_path / f"{name}.log").read_text()
        return worker

    def add_step(self, key: str = "probe", *, queue: str = "compute", job_id: str = "", **payload: object) -> str:
        with self.database.write_session() as session:
            job_id = job_id or add_job(session).id
            step = create_step(session, job_id=job_id, kind="probe", key=key, queue=queue, payload=payload)
            return step.id

    def row(self, step_id: str) -> Step:
        with self.database.read_session() as session:
            return session.get_one(Step, step_id)

    def state(self, step_id: str) -> str:
        return self.row(step_id).state

    def job(self, step_id: str) -> Job:
        with self.database.read_session() as session:
            return session.get_one(Job, session.get_one(Step, step_id).job_id)

    def finished(self) -> list[str]:
        """Keys of finished steps, one for every time that ``finish`` was committed."""
        with self.database.read_session() as session:
            payloads: list[JsonObject] = list(session.exec(select(Event.payload).where(Event.kind == "notice")))
        return [payload["finished"] for payload in payloads if "finished" in payload]


def _start(url: str, tmp_path: Path) -> Iterator[Cluster]:
    settings = load_settings(
        home=tmp_path / "home",
        database_url=url,
        host_lock_directory=tmp_path,
        lease_seconds=3,
        maintenance_seconds=0.2,
        shutdown_seconds=0.5,
        retry_seconds=0.1,
    )
    prepare_home(settings)
    migrate.upgrade(settings)
    cluster = Cluster(Database(url), settings, tmp_path)
    cluster.start()
    yield cluster
    cluster.stop()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Over SQLite."""
    yield from _start(f"sqlite:///{tmp_path / 'test.db'}", tmp_path)


@pytest.fixture
def any_cluster(database_url: str, tmp_path: Path) -> Iterator[Cluster]:
    """Over SQLite, then over PostgreSQL."""
    yield from _start(database_url, tmp_path)
