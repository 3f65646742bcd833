"""A child process that does not outlive its supervisor."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_POLL_SECONDS = 0.05


class ManagedProcess:
    """One program with its log file, in a session of its own, so that Ctrl-C reaches the supervisor only.

    Start it in a thread that lives as long as the process should: the kernel kills it together with that thread.

    Args:
        name: For messages and for the log file.
        command: Program and arguments.
        environment: The whole environment.
        log: File that its output is appended to.
        ready: Whether it can be used now; asked again and again while it starts.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        ready: Callable[[], bool],
    ) -> None:
        self.name = name
        self.command = list(command)
        """What the next start runs."""
        self._environment = dict(environment)
        self._log = log
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        """Monotonic time of the last start."""

    @property
    def pid(self) -> int | None:
        """Process id, or ``None`` if it was not started."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_status(self) -> int | None:
        """How it ended: negative for a signal; ``None`` while it runs."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        """Start it; it must not be running."""
        assert not self.alive
        parent = os.getpid()

        def die_with_parent() -> None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        self.started_at = time.monotonic()

    def is_ready(self) -> bool:
        """Whether it runs and can be used."""
        return self.alive and self._ready()

    def wait_ready(self, seconds: float) -> bool:
        """Wait until it can be used; false if it ended or took longer."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            if self._ready():
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def ask_to_stop(self) -> None:
        """Send SIGTERM; returns at once."""
        if self._process is not None and self.alive:
            self._process.terminate()

    def wait(self, seconds: float) -> bool:
        """Wait for its end; false if it still runs."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))
        return not self.alive

    def kill(self) -> None:
        """End it and what it left in its process group, by force."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
