"""Hundreds of clients that poll and watch while jobs go on."""

import asyncio
import json
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import httpx
import numpy as np
import psutil

from benchmarks import paper_jobs
from infra.api_keys import new_key
from infra.clock import utcnow
from infra.database import migrate
from infra.database.engine import Database
from infra.database.models import ApiKey
from infra.database.models import Job
from infra.events import append_event
from infra.settings import Settings
from infra.settings import load_settings

POLL_SECONDS = 5.0
"""Time between two polls of one client, jittered."""
EVENTS_PER_SECOND = 10.0
"""Of all jobs together."""


@dataclass
class Load:
    """What the clients saw."""

    latencies: list[float] = field(default_factory=list)
    """Seconds from request to complete answer, of polls."""
    delays: list[float] = field(default_factory=list)
    """Seconds from an event's commit to its arrival at a watcher."""
    errors: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Resident bytes of the API process: before, most, after."""
    events: int = 0


def run_load(folder: Path, *, clients: int, jobs: int, seconds: float) -> Load:
    """Start an API on SQLite; half of the clients poll the status of a job, the other half watch its events.

    Args:
        folder: For the home.
        clients: Number of clients; each stays with one job.
        jobs: Number of running jobs.
        seconds: Duration.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    settings = load_settings(home=folder, port=port, requests_per_minute=10_000_000, max_active_jobs=10 * jobs)
    migrate.upgrade(settings)
    database = Database(settings.database_url)
    job_ids = paper_jobs.submit(database, jobs)
    key = _owner_key(database, job_ids)
    with _api(settings, folder / "api.log") as process:
        _wait_for_port(port)
        load, stop = Load(), threading.Event()
        writer = threading.Thread(target=_write_events, args=[database, job_ids, stop, load])
        writer.start()
        try:
            asyncio.run(_clients(load, f"http://127.0.0.1:{port}", key, job_ids, clients, seconds, process))
        finally:
            stop.set()
            writer.join()
    database.dispose()
    return load


def _owner_key(database: Database, job_ids: list[str]) -> str:
    """Give the jobs to a new key; returns it."""
    row, text = new_key("load", ["read", "submit"])
    with database.write_session() as session:
        session.add(ApiKey.model_validate(row.model_dump()))
        for job_id in job_ids:
            session.get_one(Job, job_id).owner = row.id
    return text


class _api:
    """The API as the service starts it."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self._settings, self._log = settings, log

    def __enter__(self) -> psutil.Process:
        command = [sys.executable, "-m", "uvicorn", "api.app:create_app", "--factory", "--no-access-log"]
        environment = {**os.environ, **self._settings.environment(), "PYTHONPATH": str(Path.cwd())}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self._settings.port)], env=environment, stdout=log, stderr=log
            )
        return psutil.Process(self._process.pid)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(20)
        self._process.kill()


def _wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise TimeoutError("the API does not start")


def _write_events(database: Database, job_ids: list[str], stop: threading.Event, load: Load) -> None:
    """Let jobs go on: each event carries the moment of its commit."""
    generator = random.Random(0)
    while not stop.wait(1 / EVENTS_PER_SECOND):
        with database.write_session() as session:
            job = session.get_one(Job, generator.choice(job_ids))
            append_event(session, job.id, "notice", {"message": "load", "at": time.time()})
            job.version, job.started_at = job.version + 1, job.started_at or utcnow()
        load.events += 1


async def _clients(
    load: Load, url: str, key: str, job_ids: list[str], clients: int, seconds: float, process: psutil.Process
) -> None:
    limits = httpx.Limits(max_connections=clients + 10, max_keepalive_connections=clients + 10)
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=30.0) as client:
        load.memory.append(process.memory_info().rss)
        deadline = time.monotonic() + seconds
        tasks = [
            asyncio.create_task(
                (_poll if number % 2 else _watch)(load, client, job_ids[number // 2 % len(job_ids)], deadline)
            )
            for number in range(clients)
        ]
        most = 0
        while time.monotonic() < deadline:
            most = max(most, process.memory_info().rss)
            await asyncio.sleep(1.0)
        await asyncio.gather(*tasks)
        load.memory += [most, process.memory_info().rss]


async def _poll(load: Load, client: httpx.AsyncClient, job_id: str, deadline: float) -> None:
    etag = ""
    await asyncio.sleep(secrets.randbelow(1000) / 1000 * POLL_SECONDS)
    while time.monotonic() < deadline:
        started = time.perf_counter()
        try:
            answer = await client.get(f"/v1/jobs/{job_id}", headers={"If-None-Match": etag} if etag else {})
            load.latencies.append(time.perf_counter() - started)
            if answer.status_code not in (200, 304):
                load.errors.append(f"status {answer.status_code}: {answer.text[:100]}")
            etag = answer.headers.get("etag", "")
        except httpx.HTTPError as error:
            load.errors.append(f"poll: {type(error).__name__}")
        await asyncio.sleep(POLL_SECONDS * (0.75 + secrets.randbelow(500) / 1000))


async def _watch(load: Load, client: httpx.AsyncClient, job_id: str, deadline: float) -> None:
    last = "0"
    while (left := deadline - time.monotonic()) > 0:
        try:
            async with (
                asyncio.timeout(left),
                client.stream("GET", f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": last}) as stream,
            ):
                if stream.status_code != 200:
                    load.errors.append(f"watch: status {stream.status_code}")
                    return
                began = time.time()
                async for line in stream.aiter_lines():
                    if line.startswith("id:"):
                        last = line.removeprefix("id:").strip()
                    if line.startswith("data:"):
                        at = json.loads(line.removeprefix("data:")).get("payload", {}).get("at", 0.0)
                        if at > began:
                            load.delays.append(time.time() - at)
        except TimeoutError:
            return
        except httpx.HTTPError as error:
            load.errors.append(f"watch: {type(error).__name__}")


def load_row(load: Load) -> dict[str, str]:
    """Return the table's row."""
    polls, delays = np.array(load.latencies) * 1e3, np.array(load.delays) * 1e3
    return {
        "polls": f"{len(polls)}",
        "poll p50": f"{np.percentile(polls, 50):.0f} ms",
        "poll p99": f"{np.percentile(polls, 99):.0f} ms",
        "events seen": f"{len(delays)}",
        "event p50": f"{np.percentile(delays, 50):.0f} ms",
        "event p99": f"{np.percentile(delays, 99):.0f} ms",
        "errors": f"{len(load.errors)}",
        "memory before / most / after": " / ".join(f"{value >> 20} MiB" for value in load.memory),
    }
