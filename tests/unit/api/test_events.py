"""Event streams of a real server process."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from infra.api_keys import new_key
from infra.database.engine import Database
from infra.settings import Settings
from tests.helpers.rows import add_job


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_with_open_streams_stops_at_once(settings: Settings, number: signal.Signals) -> None:
    database = Database(settings.database_url)
    row, key = new_key("k", ["read"])
    with database.write_session() as session:
        session.add(row)
        session.flush()
        job_id = add_job(session, owner=row.id).id
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    environment = os.environ | settings.environment()
    server = subprocess.Popen(command, env=environment, cwd=Path(__file__).parents[3], stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}/v1/jobs/{job_id}/events"
        with httpx.Client(headers={"Authorization": f"Bearer {key}"}) as client:
            for _ in range(200):
                try:
                    client.get(f"http://127.0.0.1:{port}/health/live")
                    break
                except httpx.ConnectError:
                    time.sleep(0.1)
            with client.stream("GET", url) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                lines = response.iter_lines()
                assert next(lines) == ": connected"
                server.send_signal(number)
                started = time.monotonic()
                assert [line for line in lines if line.startswith("event:")] == []
        server.wait(10)
        assert time.monotonic() - started < 8
    finally:
        server.kill()
        server.wait()
        database.dispose()
