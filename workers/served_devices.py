"""A worker describes the devices that it serves: when it starts, and one that is registered later at its first step.

The looking is done in another process, see :mod:`workers.device_description`. A worker that cannot describe its devices
serves them all the same.
"""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Collection

from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Device
from infra.database.models import Job
from infra.queue import device_of
from infra.settings import Settings
from workers import shutdown

logger = logging.getLogger(__name__)

_LONGEST_LOOK_SECONDS = 120.0
_FIRST_DELAY_SECONDS = 5.0
_LONGEST_DELAY_SECONDS = 300.0

_tried: set[str] = set()
"""Devices that this process has looked at, or tried to, at their first step."""


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
    """Describe the device of a job unless some worker has done so; a process tries it once."""
    with database.read_session() as session:
        device = session.exec(select(Device).join(Job).where(Job.id == job_id)).one_or_none()
    if device is not None and not device.capabilities and device.name not in _tried:
        _tried.add(device.name)
        _describe(settings, [device.name])


def _describe_until_done(settings: Settings, names: Collection[str]) -> None:
    delay = _FIRST_DELAY_SECONDS
    while not _describe(settings, names) and not shutdown.requested():
        time.sleep(delay)
        delay = min(2 * delay, _LONGEST_DELAY_SECONDS)


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
    return done.returncode == 0
