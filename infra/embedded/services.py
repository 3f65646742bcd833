"""The programs that make up the embedded service, and how each is started."""

import errno
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from celery import Celery

import infra
from infra.embedded.process import ManagedProcess
from infra.errors import ConflictError
from infra.errors import UnavailableError
from infra.queue import COMPUTE
from infra.queue import SEARCH
from infra.queue import device_queue
from infra.settings import Settings

logger = logging.getLogger(__name__)

DEVICE_WORKER = "device"
_STOP_REQUESTS_SECONDS = 3
_LOOK_AT_DEVICES_SECONDS = 120


def service_processes(settings: Settings, app: Celery, devices: Iterable[str]) -> list[ManagedProcess]:
    """Return the processes beside the broker, not yet started.

    Args:
        settings: The settings; the processes get the same through their environment.
        app: To ask workers whether they are there.
        devices: Names of the devices that this host measures.
    """
    return [
        _process(settings, "api", _api_command(settings), lambda: _api_answers(settings)),
        _worker(settings, app, SEARCH, worker_command(SEARCH, [SEARCH])),
        _worker(settings, app, COMPUTE, worker_command(COMPUTE, [COMPUTE])),
        _worker(settings, app, DEVICE_WORKER, device_worker_command(devices)),
        _process(settings, "maintenance", [sys.executable, "-m", "workers.maintenance"], lambda: True),
    ]


def service_url(settings: Settings) -> str:
    """Return the URL at which the API can be reached from this host."""
    host = _reachable_host(settings)
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _reachable_host(settings: Settings) -> str:
    """Where to connect to; a server that listens at every address is reached at the loopback one."""
    try:
        address = ip_address(settings.host)
    except ValueError:
        return settings.host
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return str(address)


def worker_node(name: str) -> str:
    """Return the Celery node name of a worker of this host."""
    return f"{name}@{socket.gethostname()}"


def check_port(settings: Settings) -> None:
    """Return if the API can listen where it should.

    Raises:
        ConflictError: Another program listens there.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            taken = error.errno in {errno.EADDRINUSE, errno.EACCES}
            raise ConflictError(
                f"The API cannot listen at {settings.host}:{settings.port}: {error.strerror}.",
                hint="Choose another port with --port."
                if taken
                else "Give --host an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of them.",
            ) from error


def _api_command(settings: Settings) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "api.app:create_app", "--factory"),
        *("--host", settings.host, "--port", str(settings.port)),
        *("--timeout-graceful-shutdown", str(_STOP_REQUESTS_SECONDS), "--no-server-header"),
    ]


def worker_command(name: str, queues: Iterable[str]) -> list[str]:
    """Return the command line of a worker that serves these queues."""
    return [
        *(sys.executable, "-m", "celery", "-A", "workers.app", "--quiet", "worker"),
        *("--queues", ",".join(queues), "--hostname", worker_node(name), "--concurrency", "1"),
        *("--without-gossip", "--without-mingle", "--loglevel", "INFO"),
    ]


def device_worker_command(devices: Iterable[str]) -> list[str]:
    """Return the command line of a worker that measures on these devices."""
    return worker_command(DEVICE_WORKER, [device_queue(name) for name in devices])


def _worker(settings: Settings, app: Celery, name: str, command: list[str]) -> ManagedProcess:
    node = worker_node(name)
    return _process(settings, f"{name} worker", command, lambda: _worker_answers(app, node))


def register_local_devices(settings: Settings) -> None:
    """Write the devices of this host into the database, in a process of its own: profilers are none of our business.

    Raises:
        UnavailableError: It does not work.
    """
    command = [sys.executable, "-m", "workers.local_devices"]
    try:
        done = subprocess.run(
            command,
            env=_environment(settings),
            capture_output=True,
            text=True,
            check=False,
            timeout=_LOOK_AT_DEVICES_SECONDS,
        )
        problem = done.stderr.strip().splitlines()[-1:] if done.returncode else None
    except subprocess.TimeoutExpired as error:
        problem = [str(error)]
    if problem is not None:
        raise UnavailableError(
            f"The devices of this machine cannot be described: {' '.join(problem)}",
            hint=f"Run python {' '.join(command[1:])} to see why.",
        )
    if done.stderr:
        logger.warning("looking at the devices of this machine: %s", done.stderr.strip())


def device_description(settings: Settings, name: str) -> ManagedProcess:
    """Return the process, not yet started, that describes a device which was registered while the service runs.

    It waits until nothing is measured, and ends with status 0 if the database has the description.
    """
    command = [sys.executable, "-m", "workers.served_devices", name]
    return _process(settings, f"description of {name}", command, lambda: True)


def _process(settings: Settings, name: str, command: list[str], ready: Callable[[], bool]) -> ManagedProcess:
    log = settings.logs / f"{name.replace(' ', '-')}.log"
    return ManagedProcess(name, command, environment=_environment(settings), log=log, ready=ready)


def _environment(settings: Settings) -> dict[str, str]:
    root = str(Path(infra.__file__).parents[1])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, **settings.environment(), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def _api_answers(settings: Settings) -> bool:
    """Uvicorn listens when the application is complete, not before."""
    try:
        socket.create_connection((_reachable_host(settings), settings.port), timeout=1).close()
    except OSError:
        return False
    return True


def _worker_answers(app: Celery, node: str) -> bool:
    try:
        return bool(app.control.ping(destination=[node], timeout=0.5))
    except OSError:
        return False
