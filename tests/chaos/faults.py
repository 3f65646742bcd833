"""The faults. Each is a function that does it to a running cluster and says what it hit, or ``None`` for nothing."""

import random
import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from contextlib import suppress
from datetime import timedelta

import psutil
import redis
from sqlalchemy import update
from sqlmodel import col
from sqlmodel import select

from infra.clock import utcnow
from infra.database.engine import database_url
from infra.database.models import Step
from infra.garbage import collect_blobs
from infra.settings import broker_socket
from tests.chaos.cluster import WORKERS
from tests.chaos.cluster import Backend
from tests.chaos.cluster import Cluster
from tests.chaos.switches import DISK_FULL
from tests.chaos.switches import SLOW_STORE

Fault = Callable[[Cluster, random.Random], str | None]

STAGES = ("inspect", "prepare", "graphs", "baselines", "table", "options", "search", "recover", "finalise")
_WAIT_FOR_VICTIM_SECONDS = 3.0
_WAIT_FOR_STAGE_SECONDS = 45.0


def kill_runner(cluster: Cluster, rng: random.Random) -> str | None:
    """``kill -9`` of one process of a runner."""
    for _ in range(round(_WAIT_FOR_VICTIM_SECONDS / 0.2)):
        if runners := cluster.runners():
            return _kill(rng.choice(runners))
        cluster.sleep(0.2)
    return None


def kill_celery_child(cluster: Cluster, rng: random.Random) -> str | None:
    """``kill -9`` of the process in which Celery runs a step."""
    main = cluster.family(rng.choice(list(WORKERS)))[:1]
    with suppress(psutil.NoSuchProcess):
        children = [child for process in main for child in process.children()]
        return _kill(rng.choice(children)) if children else None
    return None


def kill_worker(cluster: Cluster, rng: random.Random) -> str | None:
    """``kill -9`` of a worker's main process."""
    return _kill_managed(cluster, rng.choice(list(WORKERS)))


def stop_worker(cluster: Cluster, rng: random.Random) -> str | None:
    """SIGTERM to a worker: it finishes its step or hands it back."""
    worker = cluster.processes[rng.choice(list(WORKERS))]
    worker.ask_to_stop()
    return worker.name


def freeze_worker(cluster: Cluster, rng: random.Random) -> str | None:
    """Stop a worker with its runners for longer than its lease, then let it go on as if nothing had been."""
    name = rng.choice(list(WORKERS))
    family = cluster.family(name)
    for process in family:
        _signal(process, signal.SIGSTOP)
    cluster.sleep(cluster.settings.lease_seconds * 1.6)
    for process in family:
        _signal(process, signal.SIGCONT)
    return name


def kill_api(cluster: Cluster, _rng: random.Random) -> str | None:
    """``kill -9`` of the API."""
    return _kill_managed(cluster, "api")


def kill_maintenance(cluster: Cluster, _rng: random.Random) -> str | None:
    """``kill -9`` of the maintenance loop."""
    return _kill_managed(cluster, "maintenance")


def kill_broker(cluster: Cluster, _rng: random.Random) -> str | None:
    """``kill -9`` of the broker."""
    return _kill_managed(cluster, "broker")


def kill_database(cluster: Cluster, rng: random.Random) -> str | None:
    """``kill -9`` of PostgreSQL with all its children; it comes back after a while."""
    assert cluster.postgresql is not None
    cluster.postgresql.kill()
    cluster.sleep(rng.uniform(0.0, 3.0))
    cluster.postgresql.start()
    return "server"


def lock_database(cluster: Cluster, rng: random.Random) -> str | None:
    """Hold SQLite's write lock, now and then for longer than anybody waits for it."""
    seconds = rng.choice([0.5, 2.0, 4.0, 11.0])
    path = database_url(cluster.settings.database_url).database
    assert path is not None
    with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        cluster.sleep(seconds)
        connection.execute("ROLLBACK")
    return f"{seconds:g} s"


def flush_broker(cluster: Cluster, _rng: random.Random) -> str | None:
    """``FLUSHALL``: every message is lost."""

    def flush() -> None:
        with redis.Redis(unix_socket_path=str(broker_socket(cluster.settings.home))) as client:
            client.flushall()

    cluster.patiently(flush)
    return "messages"


def repeat_messages(cluster: Cluster, rng: random.Random) -> str | None:
    """Messages come twice, and late: about steps that wait, run, or have long been over."""

    def read() -> list[tuple[str, str]]:
        with cluster.database.read_session() as session:
            steps = session.exec(select(Step).order_by(col(Step.created_at).desc()).limit(100))
            return [(step.id, step.queue) for step in steps]

    known = cluster.patiently(read)
    chosen = rng.sample(known, min(20, len(known)))
    for step_id, queue in chosen:
        for _ in range(2):
            cluster.patiently(lambda step_id=step_id, queue=queue: cluster.queue.dispatch(step_id, queue))
    return f"{2 * len(chosen)} messages"


def skew_clock(cluster: Cluster, rng: random.Random) -> str | None:
    """A worker starts again with a clock that is wrong by an hour, or right again."""
    name = rng.choice(list(WORKERS))
    seconds = rng.choice([-3600.0, 0.0, 3600.0])
    cluster.processes[name].kill()
    cluster.processes[name] = cluster.worker(name, seconds)
    cluster.processes[name].start()
    return f"{name} by {seconds:+.0f} s"


def fill_disk(cluster: Cluster, rng: random.Random) -> str | None:
    """The disk of the artifact store is full for a while."""
    return _switch(cluster, DISK_FULL, rng.uniform(1.0, 4.0))


def slow_store(cluster: Cluster, rng: random.Random) -> str | None:
    """The artifact store is slow for a while."""
    return _switch(cluster, SLOW_STORE, rng.uniform(1.0, 4.0))


def steal_lease(cluster: Cluster, rng: random.Random) -> str | None:
    """While workers upload slowly, the leases of running steps are over and somebody else takes the steps."""
    switch = cluster.settings.home / SLOW_STORE
    switch.touch()
    stolen = 0
    try:
        for _ in range(3):
            cluster.sleep(rng.uniform(0.2, 0.8))

            def expire() -> int:
                with cluster.database.write_session() as session:
                    over = utcnow() - timedelta(hours=1)
                    running = update(Step).where(col(Step.state) == "running").values(lease_expires_at=over)
                    return len(session.scalars(running.returning(col(Step.id))).all())

            stolen += cluster.patiently(expire)
    finally:
        switch.unlink()
    return f"{stolen} leases" if stolen else None


def cancel_job(cluster: Cluster, rng: random.Random) -> str | None:
    """Cancel a job: in a stage in which none was cancelled so far, if one gets there soon, else wherever it is."""
    missing = set(STAGES) - cluster.cancelled
    if missing & {"inspect", "prepare"}:  # they are over soon
        cluster.submit(rng)
    jobs = cluster.active()
    for _ in range(round(_WAIT_FOR_STAGE_SECONDS / 0.05)):
        if not missing or any(job.stage in missing for job in jobs):
            break
        while len(jobs) < 2:
            cluster.submit(rng)
            jobs = cluster.active()
        cluster.sleep(0.05)
        jobs = cluster.active()
    if not jobs:
        return None
    job = rng.choice([job for job in jobs if job.stage in missing] or jobs)
    cluster.patiently(lambda: cluster.client.cancel(job.id))
    cluster.cancelled.add(job.stage)
    return f"stage {job.stage}"


def collect_garbage(cluster: Cluster, _rng: random.Random) -> str | None:
    """Garbage collection while jobs upload."""
    grace = cluster.settings.blob_grace_seconds
    removed = cluster.patiently(lambda: collect_blobs(cluster.database, cluster.store, grace))
    return f"{removed} blobs"


_EVERYWHERE: dict[str, Fault] = {
    "kill -9 runner": kill_runner,
    "kill -9 Celery child": kill_celery_child,
    "kill -9 worker": kill_worker,
    "kill -9 API": kill_api,
    "kill -9 maintenance": kill_maintenance,
    "kill -9 broker": kill_broker,
    "SIGTERM to a worker": stop_worker,
    "worker frozen beyond its lease": freeze_worker,
    "broker FLUSHALL": flush_broker,
    "messages twice and late": repeat_messages,
    "clock of a worker wrong": skew_clock,
    "disk of the store full": fill_disk,
    "store slow": slow_store,
    "lease stolen during upload": steal_lease,
    "cancel": cancel_job,
    "garbage collection": collect_garbage,
}


def faults(backend: Backend) -> dict[str, Fault]:
    """Return the faults that there are on a back end, by name."""
    if backend == "sqlite":
        return _EVERYWHERE | {"database locked": lock_database}
    return _EVERYWHERE | {"kill -9 database": kill_database}


def _switch(cluster: Cluster, name: str, seconds: float) -> str:
    switch = cluster.settings.home / name
    switch.touch()
    try:
        cluster.sleep(seconds)
    finally:
        switch.unlink()
    return f"{seconds:.1f} s"


def _kill_managed(cluster: Cluster, name: str) -> str | None:
    process = cluster.processes[name]
    if process.pid is None or not process.alive:
        return None
    _signal(psutil.Process(process.pid), signal.SIGKILL)
    return name


def _kill(process: psutil.Process) -> str | None:
    return f"pid {process.pid}" if _signal(process, signal.SIGKILL) else None


def _signal(process: psutil.Process, number: signal.Signals) -> bool:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return False
    return True
