"""A service of its own for a demo or a benchmark: ``paretune up`` for the time of a block."""

import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

import paretune

START_SECONDS = 90.0


@contextmanager
def running_service(home: Path | None = None) -> Iterator[paretune.Client]:
    """Run the embedded service for the time of the block, which ends it even where this process is terminated.

    Args:
        home: Where it keeps everything; default: a directory that is removed afterwards.
    """
    with _termination_as_exit(), tempfile.TemporaryDirectory(prefix="paretune-") as scratch:
        place = (home or Path(scratch) / "home").absolute()
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "paretune.cli.app", "up", "--home", str(place), "--port", str(port)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _wait_until_ready(process, f"http://127.0.0.1:{port}/health/ready")
            with paretune.Client(f"http://127.0.0.1:{port}", home=place) as client:
                yield client
        finally:
            process.terminate()
            process.wait(timeout=60)


@contextmanager
def _termination_as_exit() -> Iterator[None]:
    """Let SIGTERM raise :class:`SystemExit`, so that what was started here is stopped."""
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_until_ready(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=2.0).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.3)
    raise SystemExit("the service did not start")
