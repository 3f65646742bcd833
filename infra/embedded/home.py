"""The home directory: one service at a time lives in it."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.errors import ConflictError
from infra.settings import Settings
from infra.settings import broker_socket


def prepare_home(settings: Settings) -> None:
    """Make the directories of a home, readable by its user only.

    Raises:
        ConflictError: A directory belongs to somebody else, or cannot be made.
    """
    for directory in (
        settings.home,
        settings.logs,
        settings.work,
        settings.home / "run",
        settings.home / "broker",
        broker_socket(settings.home).parent,
    ):
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if directory.is_symlink() and directory != settings.home:
                raise ConflictError(f"{directory} is a symbolic link.", hint="Remove it.")
            directory.chmod(0o700)
        except OSError as error:
            raise ConflictError(
                f"The directory {directory} cannot be used: {error.strerror}.",
                hint="Choose another home with --home or PARETUNE_HOME.",
            ) from error


@contextmanager
def exclusive_home(settings: Settings, url: str) -> Iterator[None]:
    """Hold the home while the service runs; the kernel lets go of it when this process dies, however it dies.

    Args:
        settings: Names the home.
        url: Where the service will answer; shown to those who come second.

    Raises:
        ConflictError: Another service runs in this home; the message names its process and URL.
    """
    path = settings.home / "run" / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _taken(settings.home, path) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "url": url}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _taken(home: Path, path: Path) -> ConflictError:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        where = f"process {note['pid']}, {note['url']}"
    except (OSError, ValueError, KeyError):
        where = "it is just starting"
    return ConflictError(
        f"Paretune already runs with the home {home} ({where}).",
        hint="Use it, stop it with Ctrl-C or SIGTERM, or choose another directory with --home and another --port.",
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its user can read, at once and completely."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
