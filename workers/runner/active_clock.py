"""A clock for work with a time budget that may be stopped from outside."""

import threading
import time
from types import TracebackType

_TICK_SECONDS = 0.05
_LONGEST_TICK_SECONDS = 2.0
"""A tick that comes later than this means that the process did not run."""


class ActiveClock:
    """Counts the seconds during which this process was allowed to run.

    A worker stops its runner (SIGSTOP) while somebody else measures on the host; that time must not count against a
    training's budget. A thread looks at the time all along: where it did not get to look, the process was stopped.
    Calling the clock gives the seconds.
    """

    def __init__(self) -> None:
        self._active = 0.0
        self._looked_at = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, name="active-clock", daemon=True)

    def __enter__(self) -> "ActiveClock":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def __call__(self) -> float:
        """Return the active seconds since the clock was made."""
        with self._lock:
            now = time.monotonic()
            passed = now - self._looked_at
            self._looked_at = now
            if passed <= _LONGEST_TICK_SECONDS:
                self._active += passed
            return self._active

    def _tick(self) -> None:
        while not self._stop.wait(_TICK_SECONDS):
            self()
