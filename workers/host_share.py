"""A compute step's share of its host, which it gives up for a while when somebody wants to measure."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

from profilers.host_lock import HostLock
from profilers.host_lock import Waiting
from workers.runner.process import RunnerProcess

SLICE_SECONDS = 5.0
"""A step keeps the host at least this long before it makes way, so that measurements cannot starve it."""


class HostShare:
    """The shared host lock, held between enter and exit except while a measurement runs.

    Args:
        lock: The host's lock.
        waiting: Called about once a second while waiting for the host; what it raises ends the waiting.
        purpose: What for; shown to those who wait.
    """

    def __init__(self, lock: HostLock, waiting: Waiting, purpose: str) -> None:
        self._lock = lock
        self._waiting = waiting
        self._purpose = purpose
        self._held = ExitStack()
        self._since = 0.0

    def __enter__(self) -> "HostShare":
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._held.close()

    def make_way(self, runner: RunnerProcess, notice: Callable[[], None]) -> None:
        """If a measurement waits, stop the runner, let the measurement have the host, and go on after it.

        Called several times a second while the runner works.

        Args:
            runner: Stopped meanwhile, wherever it is in its work.
            notice: Called once before the host is given up.
        """
        if time.monotonic() - self._since < SLICE_SECONDS or not self._lock.is_wanted():
            return
        notice()
        runner.pause()
        try:
            self._held.close()
            self._take()
        finally:
            runner.resume()

    def _take(self) -> None:
        self._held.enter_context(self._lock.shared(waiting=self._waiting, purpose=self._purpose))
        self._since = time.monotonic()
