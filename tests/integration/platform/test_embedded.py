"""The embedded service as a user meets it: started, refused, killed, started again, stopped."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from sqlmodel import select

from infra import steps
from infra.api_keys import is_valid
from infra.api_keys import split_key
from infra.database import migrate
from infra.database.engine import Database
from infra.database.models import ApiKey
from infra.database.models import Device
from infra.database.models import Step
from infra.embedded.services import DEVICE_WORKER
from infra.embedded.services import worker_node
from infra.queue import device_queue
from infra.queue import make_celery
from infra.settings import load_settings
from tests.helpers.processes import gone
from tests.helpers.rows import add_job
from tests.integration.platform.conftest import wait_for


class Service:
    """``python -m infra.embedded`` in a home of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.settings = load_settings(home=home)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.output = home.with_suffix(".out")
        self.process = self.up()

    def up(self) -> "subprocess.Popen[bytes]":
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path.cwd()),
            "PARETUNE_HOST_LOCK_DIRECTORY": str(self.home.parent),
            "PARETUNE_SHUTDOWN_SECONDS": "1",
        }
        command = [sys.executable, "-m", "infra.embedded", "--home", str(self.home), "--port", str(self.port)]
        with self.output.open("ab") as output:
            return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)

    def said(self) -> str:
        return self.output.read_text()

    def ready(self, times: int = 1) -> bool:
        assert self.process.poll() is None, self.said()
        return self.said().count("Paretune is ready") == times

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def main_process(self, words: str) -> psutil.Process | None:
        """The child of the supervisor with these words in its command line."""
        for process in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):
                if words in " ".join(process.cmdline()):
                    return process
        return None


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "home")
    yield service
    if service.process.poll() is None:
        service.process.kill()
        service.process.wait()


@pytest.mark.slow
def test_life_of_the_embedded_service(service: Service) -> None:
    wait_for(service.ready, 120)

    # What is in the home is nobody else's business, and the key in it works.
    settings = service.settings
    assert stat.S_IMODE(service.home.stat().st_mode) == 0o700
    assert stat.S_IMODE(settings.api_key_file.stat().st_mode) == 0o600
    key = settings.api_key_file.read_text().strip()
    prefix, secret = split_key(key)
    database = Database(settings.database_url)
    with database.read_session() as session:
        assert is_valid(session.exec(select(ApiKey).where(ApiKey.prefix == prefix)).one(), secret)
    url = settings.url_file.read_text().strip()
    assert urllib.request.urlopen(f"{url}/health/ready").status == 200

    # A second one is refused, and told why.
    second = service.up()
    assert second.wait(60) == 1
    assert f"already runs with the home {service.home} (process {service.process.pid}, {url})" in service.said()

    # A device that is registered while the service runs is served within seconds.
    with database.write_session() as session:
        session.add(Device(name="added-later", profiler="onnxruntime"))
    wait_for(lambda: "The device worker serves the new device added-later." in service.said())

    def described() -> Device:
        with database.read_session() as session:
            return session.exec(select(Device).where(Device.name == "added-later")).one()

    wait_for(lambda: described().capabilities)
    assert described().capabilities["available"]
    assert described().facts["fingerprint"]

    # What dies is started again, the device worker for all devices that there are by now.
    victims = (
        ("broker", "valkey-server"),
        ("compute worker", "--queues compute"),
        ("device worker", "--queues device."),
    )
    for name, words in victims:
        victim = service.main_process(words)
        assert victim is not None
        victim.kill()
        wait_for(lambda name=name: f"The {name} ended (exit status -9); starting it again" in service.said())  # type: ignore[misc]
        wait_for(lambda words=words, victim=victim: service.main_process(words) not in (None, victim))  # type: ignore[misc]

    app = make_celery(settings)
    node = worker_node(DEVICE_WORKER)

    def queues() -> set[str]:
        found = app.control.inspect(destination=[node], timeout=0.5).active_queues() or {}
        return {queue["name"] for queue in found.get(node, [])}

    wait_for(queues, 60)
    assert queues() >= {device_queue("local-cpu"), device_queue("added-later")}
    app.close()

    # Killed by force, it leaves no process behind.
    family = service.family()
    assert len(family) >= 8
    service.process.kill()
    service.process.wait()
    assert all(gone(process.pid) for process in family)

    # What was under way when everything was killed is taken up again at once.
    with database.write_session() as session:
        job = add_job(session)
        step = steps.create_step(session, job_id=job.id, kind="unknown", key="unknown", queue="compute")
    with database.write_session() as session:
        assert steps.claim(session, step.id, f"{socket.gethostname()}/{family[0].pid}", 3600) is not None
    service.process = service.up()
    wait_for(lambda: service.ready(2), 120)

    def taken_up() -> bool:
        with database.read_session() as session:
            row = session.get_one(Step, step.id)
            return row.attempt >= 2 and row.lease_owner is None

    wait_for(taken_up)
    assert settings.api_key_file.read_text().strip() == key
    database.dispose()

    # Ctrl-C twice in a row stops everything within seconds.
    family = service.family()
    started = time.monotonic()
    service.process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    service.process.send_signal(signal.SIGINT)
    assert service.process.wait(30) == 0
    assert time.monotonic() - started < 15
    assert all(gone(process.pid, within=1) for process in family)
    assert not settings.url_file.exists()
    assert service.said().rstrip().endswith("Paretune has stopped.")


def test_a_port_in_use_is_said_so(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = [sys.executable, "-m", "infra.embedded", "--home", str(tmp_path / "h")]
        result = subprocess.run(
            [*command, "--port", str(taken.getsockname()[1])], capture_output=True, text=True, timeout=60, check=False
        )
    assert result.returncode == 1
    assert "Address already in use" in result.stderr
    assert "--port" in result.stderr


def test_an_interrupt_during_the_start_stops_at_once(service: Service) -> None:
    wait_for(lambda: (service.home / "run" / "lock").exists(), 60)
    wait_for(lambda: (service.home / "run" / "lock").read_text())
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
    assert "ready" not in service.said()


def test_the_embedded_database_is_migrated(service: Service) -> None:
    wait_for(service.ready, 120)
    migrate.check(service.settings)
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(60) == 0
