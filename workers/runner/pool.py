"""The runners of one worker process: resident between the steps of a job, never shared between jobs."""

import logging
import threading
import time
from pathlib import Path

from infra.settings import Settings
from workers.runner.operation import Role
from workers.runner.process import RunnerProcess

logger = logging.getLogger(__name__)


class RunnerPool:
    """At most one runner for each role.

    Args:
        settings: Limits of the runners, and how long an idle one is kept.
        registry: Module that maps the names of operations to functions.
    """

    def __init__(self, settings: Settings, registry: str = "workers.operations") -> None:
        self._settings = settings
        self._registry = registry
        self._runners: dict[Role, RunnerProcess] = {}
        self._job_id: str | None = None
        self._busy = False
        self._used_at = time.monotonic()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._idle = threading.Thread(target=self._close_idle, name="idle-runners", daemon=True)
        self._idle.start()

    def enter(self, job_id: str) -> None:
        """Begin a step of a job; the runners of another job are closed."""
        with self._lock:
            self._busy = True
            if job_id != self._job_id:
                self._close_all()
                self._job_id = job_id

    def leave(self) -> None:
        """End the step; the runners stay for the next one."""
        with self._lock:
            self._busy = False
            self._used_at = time.monotonic()

    def get(self, role: Role, workdir: Path) -> RunnerProcess:
        """Return the runner of a role, started if there is none that lives.

        Raises:
            RunnerError: It does not start.
        """
        runner = self._runners.get(role)
        if runner is None or not runner.alive:
            if runner is not None:
                runner.close()
            runner = self._runners[role] = RunnerProcess(self._settings, role, workdir, self._registry)
            logger.info("started %s runner %d", role, runner.pid)
        return runner

    def close(self) -> None:
        """Close all runners."""
        self._stop.set()
        with self._lock:
            self._close_all()
        self._idle.join()

    def _close_all(self) -> None:
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()

    def _close_idle(self) -> None:
        limit = self._settings.runner_idle_seconds
        while not self._stop.wait(min(limit / 4, 5.0)):
            with self._lock:
                if self._runners and not self._busy and time.monotonic() - self._used_at > limit:
                    logger.info("closing idle runners")
                    self._close_all()
