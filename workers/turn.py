"""Whose turn it is at a worker: changing the job costs a new runner and loading a model, so not at every step."""

import time
from collections.abc import Callable


class Turn:
    """Remembers the job of a worker's last step, and since when it works for that job.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._job_id: str | None = None
        self._since = 0.0

    def job(self, seconds: float) -> str | None:
        """Return the job that may keep the worker; ``None`` when it had it for ``seconds`` or longer."""
        return self._job_id if self._clock() - self._since < seconds else None

    def took(self, job_id: str, seconds: float) -> None:
        """Note a claimed step: another job, or the same one after its turn was over, begins a turn."""
        if job_id != self.job(seconds):
            self._job_id, self._since = job_id, self._clock()
