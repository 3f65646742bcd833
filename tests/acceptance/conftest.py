"""The whole service as a user runs it: ``paretune up`` on a tiny model."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import paretune
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model

START_SECONDS = 60.0


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    """Wait until a condition holds, or fail."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.1)


class Service:
    """``paretune up`` in a home of its own, on a free port."""

    def __init__(self, home: Path) -> None:
        self.home = home
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.starts = 0
        self.start()

    def start(self) -> None:
        self.starts += 1
        environment = {
            **os.environ,
            "PARETUNE_HOST_LOCK_DIRECTORY": str(self.home.parent),
            "PARETUNE_LEASE_SECONDS": "6",
            "PARETUNE_MEASURE_SECONDS": "2",
            "PARETUNE_CONFIRM_SECONDS": "3",
            "PARETUNE_SHUTDOWN_SECONDS": "1",
        }
        command = [
            *(sys.executable, "-m", "paretune.cli.app", "up"),
            *("--home", str(self.home), "--port", str(self.port)),
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        wait_for(self._is_ready, START_SECONDS)

    @property
    def log(self) -> Path:
        return self.home.with_suffix(".log")

    def _is_ready(self) -> bool:
        text = self.log.read_text()
        assert self.process.poll() is None, text
        return text.count("Paretune is ready") == self.starts

    def client(self) -> paretune.Client:
        return paretune.Client(f"http://127.0.0.1:{self.port}", home=self.home)

    def family(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def pids(self, words: str) -> list[int]:
        """Processes of the service that have these words in their command line."""
        found = []
        for process in self.family():
            with suppress(psutil.Error):
                if words in " ".join(process.cmdline()):
                    found.append(process.pid)
        return found

    def kill_everything(self) -> None:
        for pid in [self.process.pid, *(process.pid for process in self.family())]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """Press Ctrl-C; returns the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=40)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service") / "home")
    yield service
    if service.process.poll() is None:
        service.kill_everything()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[paretune.Client]:
    with service.client() as client:
        yield client


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model") / "tiny", hidden_size=64, intermediate_size=256)


@pytest.fixture(scope="module")
def dataset_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_dataset(tmp_path_factory.mktemp("data") / "examples.jsonl", rows=160)
