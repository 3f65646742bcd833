"""The home directory, the key in it, the port, the disk."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.embedded.services import check_port
from infra.errors import ConflictError
from infra.settings import Settings
from workers.checkup.findings import Finding
from workers.checkup.findings import judged

_LEAST_FREE_BYTES = 2 << 30
_LEAST_FREE_SHARE = 0.03


def check_home(settings: Settings) -> Iterator[Finding]:
    """Whether the service can keep its files there, and nobody else can read them."""
    existing = next(path for path in (settings.home, *settings.home.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        yield Finding(
            "home",
            "problem",
            f"{settings.home} cannot be written: {error.strerror}",
            "Give the directory to the service's user, or choose another with --home or PARETUNE_HOME.",
        )
        return
    open_to_others = settings.home.exists() and bool(settings.home.stat().st_mode & 0o077)
    yield judged(
        "home",
        good=not open_to_others,
        detail=f"{settings.home}" + (" can be read by other users" if open_to_others else ""),
        hint=f"chmod 700 {settings.home}",
        otherwise="warning",
    )
    yield _disk(existing, settings.home)


def _disk(existing: Path, home: Path) -> Finding:
    usage = shutil.disk_usage(existing)
    enough = usage.free > _LEAST_FREE_BYTES and usage.free > _LEAST_FREE_SHARE * usage.total
    return judged(
        "disk",
        good=enough,
        detail=f"{usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free for {home}",
        hint="Free some space or delete old jobs, or set PARETUNE_HOME to a larger disk.",
        otherwise="problem" if usage.free < _LEAST_FREE_BYTES else "warning",
    )


def check_api_key(settings: Settings) -> Iterator[Finding]:
    """Whether the embedded service's key is private."""
    path = settings.api_key_file
    if not path.exists():
        return
    status = path.stat()
    private = not status.st_mode & 0o077 and status.st_uid == os.getuid()
    yield judged(
        "api key file",
        good=private,
        detail=f"{path}, mode {stat.S_IMODE(status.st_mode):o}"
        + ("" if status.st_uid == os.getuid() else f", owned by user {status.st_uid}"),
        hint=f"chmod 600 {path}; if others may have read it, make a new key: paretune keys rotate KEY_ID",
        otherwise="problem",
    )


def check_listening(settings: Settings) -> Iterator[Finding]:
    """Whether the API can listen, unless the service of this home does already."""
    where = f"{settings.host}:{settings.port}"
    if is_running(settings):
        yield Finding("port", "ok", f"{where}, unless the running service was given another")
        return
    try:
        check_port(settings)
    except ConflictError as error:
        yield Finding(
            "port",
            "problem",
            f"{where} cannot be used: {error.message}",
            "Stop the program that has it, or choose another port with --port or PARETUNE_PORT.",
        )
    else:
        yield Finding("port", "ok", f"{where} is free")


def is_running(settings: Settings) -> bool:
    """Whether an embedded service runs in this home."""
    try:
        file = os.open(settings.home / "run" / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False
