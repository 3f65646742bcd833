"""A worker describes the devices that it serves: when it starts, and one that is registered later at its first step.

The embedded service has one that is registered later described within seconds, by this module as a program. The looking
is done in another process, see :mod:`workers.device_description`, while nothing is measured on this host. A worker that
cannot describe its devices serves them all the same.
"""

import argparse
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection
from collections.abc import Sequence

from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Device
from infra.database.models import Job
from infra.log import configure_logging
from infra.queue import device_of
from infra.settings import Settings
from infra.settings import load_settings
from profilers.host_lock import HostLock
from workers import shutdown

logger = logging.getLogger(__name__)

_LONGEST_LOOK_SECONDS = 120.0
_FIRST_DELAY_SECONDS = 5.0
_LONGEST_DELAY_SECONDS = 300.0
_LONGEST_LOG = 4000

_tried: set[str] = set()
"""Ids of the devices that this process has looked at, or tried to, at their first step."""


def describe_at_start(settings: Settings, queues: Collection[str]) -> threading.Thread | None:
    """Describe the devices of these queues beside the worker's work; again and again until the database has it.

    Args:
        settings: The worker's.
        queues: What it serves.

    Returns:
        The thread that does it, or ``None`` if there are no devices among them.
    """
    names = sorted(name for name in map(device_of, queues) if name is not None)
    if not names:
        return None
    thread = threading.Thread(target=_describe_until_done, args=[settings, names], daemon=True, name="devices")
    thread.start()
    return thread


def describe_if_new(settings: Settings, database: Database, job_id: str) -> None:
    """Describe the device of a job unless some worker has done so; a process tries it once.

    The caller holds the lock of the host.
    """
    with database.read_session() as session:
        device = session.exec(select(Device).join(Job).where(Job.id == job_id)).one_or_none()
    if device is not None and not device.capabilities and device.id not in _tried:
        _describe(settings, [device.name])
        _tried.add(device.id)


def _describe_until_done(settings: Settings, names: Collection[str]) -> None:
    delay = _FIRST_DELAY_SECONDS
    while not _describe_when_idle(settings, names) and not shutdown.requested():
        time.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY_SECONDS)


def _describe_when_idle(settings: Settings, names: Collection[str]) -> bool:
    with HostLock(settings.host_lock_directory).shared(purpose="devices"):
        return _describe(settings, names)


def _describe(settings: Settings, names: Collection[str]) -> bool:
    command = [sys.executable, "-m", "workers.device_description", *names]
    try:
        done = subprocess.run(
            command,
            env=os.environ | settings.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_LONGEST_LOOK_SECONDS,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        logger.warning("devices cannot be described: %s", error)
        return False
    for line in done.stdout.splitlines():
        logger.info("device %s", line)
    if done.returncode != 0:
        logger.warning("devices cannot be described: %s", " ".join(done.stderr.split())[-500:])
    elif done.stderr:
        logger.warning("looking at devices: %s", done.stderr.strip()[-_LONGEST_LOG:])
    return done.returncode == 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Describe devices once, as soon as nothing is measured on this host."""
    parser = argparse.ArgumentParser(prog="python -m workers.served_devices", description=main.__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="registered devices; others are left out")
    names = parser.parse_args(arguments).names
    settings = load_settings()
    configure_logging(settings.log_format)
    sys.exit(0 if _describe_when_idle(settings, names) else 1)


if __name__ == "__main__":
    main()
