"""The workers' Celery application, with cheap runner operations, a clock that may be wrong, and a store that may be
full or slow: ``celery -A tests.chaos.worker_app worker``.

Everything else is the real thing. The clock is moved before anything else is imported.
"""

# ruff: noqa: E402
import errno
import os
import time
from datetime import datetime
from datetime import timedelta
from typing import Any
from typing import BinaryIO

from infra import clock
from tests.chaos.switches import DISK_FULL
from tests.chaos.switches import SKEW
from tests.chaos.switches import SLOW_STORE

_skew = timedelta(seconds=float(os.environ.get(SKEW, "0")))
_right_time = clock.utcnow


def _wrong_time() -> datetime:
    return _right_time() + _skew


clock.utcnow = _wrong_time

from celery.signals import worker_process_init

from infra.queue import StepQueue
from infra.store import BlobRef
from infra.store import local
from workers import tasks
from workers.app import app
from workers.app import settings
from workers.executor import StepExecutor
from workers.stages import STAGES

_copy_and_hash = local.copy_and_hash


def _copy_with_trouble(source: BinaryIO, target: BinaryIO | None) -> BlobRef:
    if (settings.home / DISK_FULL).exists():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if (settings.home / SLOW_STORE).exists():
        time.sleep(1.0)
    return _copy_and_hash(source, target)


local.copy_and_hash = _copy_with_trouble


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _on_process_init(**_: Any) -> None:
    tasks._executor = StepExecutor(settings, STAGES, StepQueue(settings, app), registry="tests.chaos.operations")
