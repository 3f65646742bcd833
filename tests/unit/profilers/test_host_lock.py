"""The host lock between real processes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.errors import UnavailableError
from profilers.host_lock import HostLock

HOLD = """
import sys, time
from pathlib import Path
from profilers.host_lock import HostLock
lock = HostLock(Path(sys.argv[1]), "test")
with getattr(lock, sys.argv[2])(timeout=20):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
print("released", flush=True)
"""


@pytest.fixture
def start(tmp_path):
    """Start a process that holds the lock; returns when it has it, unless told not to wait."""
    processes = []

    def starter(mode: str, seconds: float, *, wait: bool = True) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path), mode, str(seconds)], stdout=subprocess.PIPE, text=True
        )
        processes.append(process)
        if wait:
            assert process.stdout.readline() == "held\n"
        return process

    yield starter
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def lock(tmp_path: Path) -> HostLock:
    return HostLock(tmp_path, "test")


def test_compute_work_is_shared(start, lock):
    start("shared", 20)
    with lock.shared(timeout=1):
        pass


@pytest.mark.parametrize(
    ("held", "wanted"), [("shared", "exclusive"), ("exclusive", "shared"), ("exclusive", "exclusive")]
)
def test_measuring_is_alone(start, lock, held, wanted):
    start(held, 20)
    with pytest.raises(UnavailableError, match="busy"), getattr(lock, wanted)(timeout=0.2):
        pytest.fail("the lock was given twice")


def test_a_killed_holder_releases(start, lock):
    process = start("exclusive", 60)
    assert lock.holder() == {"pid": process.pid, "purpose": "measurement"}
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    with lock.exclusive(timeout=2):
        assert lock.holder() == {"pid": os.getpid(), "purpose": "measurement"}
    assert lock.holder() is None


def test_a_waiting_measurement_is_not_starved_by_new_compute_work(start, lock):
    start("shared", 1.0)
    measuring = start("exclusive", 0.6, wait=False)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:  # until the measurement waits, compute work still gets in at once
        try:
            with lock.shared(timeout=0.0):
                time.sleep(0.02)
        except UnavailableError:
            break
    started = time.monotonic()
    with lock.shared(timeout=10):  # must queue up behind the measurement, although only compute work holds the lock
        assert measuring.stdout.readline() == "held\n"
        assert time.monotonic() - started > 0.5


def test_waiting_is_reported_and_can_be_ended(start, lock):
    start("shared", 20)
    heard = []

    def waiting(seconds: float) -> None:
        heard.append(seconds)
        if len(heard) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), lock.exclusive(waiting=waiting):
        pytest.fail("the lock was given twice")
    assert heard == sorted(heard)
    with lock.shared(timeout=1):  # the one who gave up does not block others
        pass


def test_a_forked_child_does_not_keep_the_lock(lock):
    with lock.exclusive(timeout=1):
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
    try:
        with lock.exclusive(timeout=1):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_planted_link_is_not_followed(tmp_path, lock):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock.path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"), lock.exclusive(timeout=1):
        pytest.fail("followed")
    assert victim.read_text() == "precious"
