"""One host, two kinds of work: computing may be shared, measuring must be alone.

``flock`` on two files: the kernel releases a lock when its holder dies, however it dies. The first file is a
turnstile: a measurement that waits closes it, so that new compute steps queue up behind it and it is never starved.
"""

import fcntl
import json
import os
import tempfile
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from contextlib import suppress
from pathlib import Path
from typing import Literal

from infra.errors import UnavailableError
from profilers.host import hardware_fingerprint

Mode = Literal["shared", "exclusive"]
Waiting = Callable[[float], None]
"""Called with the seconds waited so far, about once a second."""

_POLL_SECONDS = 0.05
_NOTIFY_SECONDS = 1.0


class HostLock:
    """The lock of this host.

    It is not re-entrant: a holder that asks again for a stronger mode waits for itself until the timeout.
    A process that was forked (not started anew) while the lock is held does not hold it.

    Args:
        directory: Where the lock files lie; every service on the host must use the same. Default: the system's
            directory for temporary files.
        name: Names the resource; default: the hardware fingerprint.
    """

    def __init__(self, directory: Path | None = None, name: str | None = None) -> None:
        base = directory or Path(tempfile.gettempdir())
        stem = f"paretune-host-{name or hardware_fingerprint()}"
        self.path = base / f"{stem}.lock"
        self._turnstile = base / f"{stem}.turnstile"

    @contextmanager
    def shared(
        self, *, timeout: float | None = None, waiting: Waiting | None = None, purpose: str = "compute"
    ) -> Iterator[None]:
        """Hold the lock beside other compute work, while nothing is measured.

        Args:
            timeout: Seconds to wait; ``None`` waits for ever.
            waiting: Called while waiting, for heartbeats and progress; what it raises ends the waiting.
            purpose: What for; shown to those who wait.

        Raises:
            UnavailableError: The lock was not free in time.
        """
        with self._hold("shared", timeout, waiting, purpose):
            yield

    @contextmanager
    def exclusive(
        self, *, timeout: float | None = None, waiting: Waiting | None = None, purpose: str = "measurement"
    ) -> Iterator[None]:
        """Hold the lock alone. Arguments and errors as for :meth:`shared`."""
        with self._hold("exclusive", timeout, waiting, purpose):
            yield

    def is_wanted(self) -> bool:
        """Whether somebody waits for the exclusive lock at this moment; for long shared work that can make way."""
        with _opened(self._turnstile) as gate:
            try:
                fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def holder(self) -> dict[str, object] | None:
        """Return ``{"pid", "purpose"}`` of the last exclusive holder that is still alive, or ``None``."""
        with suppress(OSError, ValueError):
            note = json.loads(self.path.read_text(encoding="utf-8"))
            if isinstance(note, dict) and Path(f"/proc/{note['pid']}").exists():
                return note
        return None

    @contextmanager
    def _hold(self, mode: Mode, timeout: float | None, waiting: Waiting | None, purpose: str) -> Iterator[None]:
        started = time.monotonic()
        deadline = None if timeout is None else started + timeout
        operation = fcntl.LOCK_SH if mode == "shared" else fcntl.LOCK_EX
        with ExitStack() as held:
            with _opened(self._turnstile) as gate:
                self._acquire(gate, operation, started, deadline, waiting, mode)
                file = held.enter_context(_opened(self.path))
                self._acquire(file, operation, started, deadline, waiting, mode)
            if mode == "exclusive":
                _write_note(file, {"pid": os.getpid(), "purpose": purpose})
                held.callback(_write_note, file, None)
            yield

    def _acquire(
        self,
        file: int,
        operation: int,
        started: float,
        deadline: float | None,
        waiting: Waiting | None,
        mode: Mode,
    ) -> None:
        notified = started
        while True:
            try:
                fcntl.flock(file, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                now = time.monotonic()
                if deadline is not None and now >= deadline:
                    raise UnavailableError(
                        f"The host was busy for {now - started:.0f} s: the {mode} lock {self.path} is held"
                        f" (last measuring process: {self.holder() or 'none'}).",
                        hint="Wait for the running measurement or compute step to end, then try again.",
                    ) from None
                if waiting is not None and now - notified >= _NOTIFY_SECONDS:
                    notified = now
                    waiting(now - started)
                time.sleep(_POLL_SECONDS)
            else:
                return


_open_files: set[int] = set()


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a lock file; the lock goes with the descriptor."""
    file = _open(path)
    _open_files.add(file)
    try:
        yield file
    finally:
        if file in _open_files:  # else: this is a forked child, which has closed it
            _open_files.discard(file)
            os.close(file)


def _open(path: Path) -> int:
    """Open without following a planted link; another user's file is opened read-only, which is enough for a lock."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, flags | os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        try:
            return os.open(path, flags | os.O_RDWR)
        except PermissionError:
            return os.open(path, flags | os.O_RDONLY)
    os.fchmod(file, 0o666)  # whatever the umask: other users of this host take part
    return file


def _write_note(file: int, note: dict[str, object] | None) -> None:
    with suppress(OSError):
        os.ftruncate(file, 0)
        if note is not None:
            os.pwrite(file, json.dumps(note).encode(), 0)


def _drop_in_child() -> None:
    """Close inherited descriptors: a lock lives as long as any copy of its descriptor."""
    for file in tuple(_open_files):
        with suppress(OSError):
            os.close(file)
    _open_files.clear()


os.register_at_fork(after_in_child=_drop_in_child)
