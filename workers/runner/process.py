"""The parent's side of a runner: start it, call it, watch it, end it."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import cast

import psutil

from infra.errors import RunnerError
from infra.errors import from_dict
from infra.json_types import JsonObject
from infra.settings import Settings
from workers.runner.channel import Channel
from workers.runner.launch import runner_environment
from workers.runner.launch import runner_options
from workers.runner.operation import Role
from workers.runner.watchdog import Watchdog
from workers.runner.watchdog import describe_exit

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_START_SECONDS = 120.0
_TERM_SECONDS = 2.0


def _nothing(_payload: JsonObject) -> None:
    """Progress that nobody wants."""


def _go_on() -> None:
    """Nobody wants to stop."""


class RunnerProcess:
    """One runner: a process group without secrets and with limits, which dies with this process.

    Start it in a thread that lives as long as the runner should: the kernel ends it together with that thread.

    Args:
        settings: Limits and number of threads.
        role: ``compute`` or ``device``.
        workdir: The job's work directory.
        registry: Module that maps the names of operations to functions.

    Raises:
        RunnerError: It does not start.
    """

    def __init__(self, settings: Settings, role: Role, workdir: Path, registry: str = "workers.operations") -> None:
        self.role = role
        self._closed = False
        self._timeout = settings.step_timeout_seconds
        workdir.mkdir(parents=True, exist_ok=True)
        self._private = Path(tempfile.mkdtemp(prefix=f"runner-{role}-", dir=workdir))
        self._log = self._private / "stderr.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",  # what lies in the working directory must not be imported
                    "-m",
                    "workers.runner",
                    json.dumps(asdict(runner_options(settings, role, workdir, registry))),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=self._private,
                env=runner_environment(role, settings.runner_threads, self._private),
                start_new_session=True,
            )
        self._channel = Channel(self._process)
        self._watchdog = Watchdog(self._process.pid, settings.runner_memory_bytes, settings.runner_processes)
        try:
            self.layers: dict[str, bool] = self._receive("start", _START_SECONDS)["ready"]
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the warden, which is also the id of the process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it can be called; not if somebody removed the job's work directory under it."""
        return self._process.poll() is None and self._private.is_dir()

    def call(
        self,
        operation: str,
        arguments: JsonObject,
        *,
        timeout: float | None = None,
        on_progress: Callable[[JsonObject], None] = _nothing,
        check: Callable[[], None] = _go_on,
    ) -> JsonObject:
        """Do an operation and wait for its result.

        After anything but a result or an error that the operation raised on purpose the runner is gone.

        Args:
            operation: Name in the registry.
            arguments: JSON.
            timeout: Seconds; ``step_timeout_seconds`` of the settings by default.
            on_progress: Gets what the operation reports.
            check: Called several times a second; what it raises stops the work and is raised here.

        Raises:
            ParetuneError: What the operation raised.
            RunnerError: An unexpected exception, too much memory or time, or the runner died; the message says which.
        """
        try:
            self._channel.send({"operation": operation, "arguments": arguments})
            answer = self._receive(operation, timeout or self._timeout, on_progress, check)
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            error = from_dict(cast("JsonObject", answer["error"]))
            if isinstance(error, RunnerError):
                self.close()
            raise error
        return cast("JsonObject", answer["result"])

    def pause(self) -> None:
        """Stop the work where it is, without any say in it; :meth:`resume` lets it go on.

        The warden is left alone: it has to end the others if this process dies meanwhile.
        """
        self._signal_work(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the work go on."""
        self._signal_work(signal.SIGCONT)

    def _signal_work(self, number: signal.Signals) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def close(self) -> None:
        """End the whole process group. Can be called twice."""
        if self._closed:
            return
        self._closed = True
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_TERM_SECONDS)
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._channel.close()
        shutil.rmtree(self._private, ignore_errors=True)

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def _receive(
        self,
        operation: str,
        timeout: float,
        on_progress: Callable[[JsonObject], None] = _nothing,
        check: Callable[[], None] = _go_on,
    ) -> JsonObject:
        deadline = time.monotonic() + timeout
        while True:
            for message in self._channel.receive(_POLL_SECONDS):
                if "progress" not in message:
                    return message
                on_progress(cast("JsonObject", message["progress"]))
            checked_at = time.monotonic()
            check()
            deadline += time.monotonic() - checked_at  # it may have waited for a measurement
            self._watchdog.check()
            if self._channel.ended:
                raise self._death(operation)
            if time.monotonic() > deadline:
                raise RunnerError(
                    f"The operation {operation!r} took longer than {timeout:g} s and was stopped.",
                    hint="Use a smaller model or fewer examples, or raise PARETUNE_STEP_TIMEOUT_SECONDS.",
                )

    def _death(self, operation: str) -> RunnerError:
        try:
            code = self._process.wait(_TERM_SECONDS)
        except subprocess.TimeoutExpired:
            return RunnerError(f"The runner stopped answering during {operation!r}.")
        last_words = self._log.read_text(encoding="utf-8", errors="replace")[-4000:]
        logger.error("runner %d died during %s with exit status %d:\n%s", self.pid, operation, code, last_words)
        return describe_exit(operation, code)
