"""Starts the programs of the embedded service, starts again what dies, stops all of them."""

import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Device
from infra.embedded.home import exclusive_home
from infra.embedded.home import prepare_home
from infra.embedded.home import write_private
from infra.embedded.process import ManagedProcess
from infra.embedded.services import DEVICE_WORKER
from infra.embedded.services import check_port
from infra.embedded.services import device_description
from infra.embedded.services import device_worker_command
from infra.embedded.services import register_local_devices
from infra.embedded.services import service_processes
from infra.embedded.services import service_url
from infra.embedded.services import worker_node
from infra.embedded.valkey import valkey_process
from infra.errors import ParetuneError
from infra.errors import UnavailableError
from infra.queue import device_queue
from infra.queue import make_celery
from infra.settings import Settings
from infra.settings import embedded_broker_url
from infra.setup import set_up

logger = logging.getLogger(__name__)

_START_SECONDS = 120.0
_LOOK_SECONDS = 0.25
_DEVICES_SECONDS = 5.0
_STOP_SECONDS = 8.0
"""Beyond the time that a worker has for its step."""
_FIRST_RESTART_SECONDS = 0.5
_LAST_RESTART_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0


class Supervisor:
    """The embedded service of one home; call :meth:`run` in the main thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = service_url(settings)
        self._stop_requests = 0
        self._broker: ManagedProcess | None = None
        self._workers: list[ManagedProcess] = []
        """Everything but the broker."""
        self._restart_delays: dict[str, float] = {}
        self._restart_at: dict[str, float] = {}
        self._known_devices: set[str] = set()
        self._looked_for_devices_at = 0.0
        self._undescribed: list[str] = []
        self._description: ManagedProcess | None = None
        """Describes the device that was the first of them."""

    def run(self) -> int:
        """Run until SIGINT or SIGTERM; a second signal stops by force.

        Returns:
            Exit status: 0 after a clean stop.

        Raises:
            ConflictError: Another service runs in this home, or another program has its port.
            UnavailableError: A part does not start.
        """
        prepare_home(self._settings)
        with exclusive_home(self._settings, self._url), self._signals():
            check_port(self._settings)
            try:
                self._start()
                self._watch()
            finally:
                self._settings.url_file.unlink(missing_ok=True)
                self._stop()
        return 0

    def _start(self) -> None:
        settings = self._settings
        set_up(settings)
        try:
            register_local_devices(settings)
        except UnavailableError as error:
            say(f"{error.message} {error.hint} The devices that are known from before are served.")
        self._database = Database(settings.database_url)
        self._celery = make_celery(settings)
        if settings.broker_url == embedded_broker_url(settings.home):
            self._broker = valkey_process(settings)
            self._broker.start()
            self._wait_ready(self._broker)
        self._known_devices = set(settings.devices) | self._registered_devices()
        others = service_processes(settings, self._celery, sorted(self._known_devices))
        for process in others:
            self._workers.append(process)
            process.start()
        for process in others:
            self._wait_ready(process)
        if self._stop_requests:
            return
        write_private(settings.url_file, self._url + "\n")
        say(f"Paretune is ready at {self._url} (home {settings.home}, API key in {settings.api_key_file}).")

    def _wait_ready(self, process: ManagedProcess) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._stop_requests and not process.is_ready():
            if not process.alive or time.monotonic() > deadline:
                raise UnavailableError(
                    f"The {process.name} does not start (exit status {process.exit_status}).",
                    hint=f"Its log is in {self._settings.logs}.",
                )
            time.sleep(_LOOK_SECONDS / 5)

    def _watch(self) -> None:
        while not self._stop_requests:
            for process in self._processes():
                if not process.alive:
                    self._restart(process)
            self._serve_new_devices()
            time.sleep(_LOOK_SECONDS)

    def _restart(self, process: ManagedProcess) -> None:
        """Start a dead process again, at once the first time and then with growing delays while it keeps dying."""
        now = time.monotonic()
        due = self._restart_at.get(process.name)
        if due is None:
            healthy = now - process.started_at > _HEALTHY_SECONDS
            delay = _FIRST_RESTART_SECONDS if healthy else self._restart_delays.get(process.name, 0.0)
            say(
                f"The {process.name} ended (exit status {process.exit_status}); starting it again"
                + (f" in {delay:.0f} s." if delay >= 1 else ".")
            )
            process.kill()  # what it may have left in its process group
            self._restart_delays[process.name] = min(max(2 * delay, _FIRST_RESTART_SECONDS), _LAST_RESTART_SECONDS)
            self._restart_at[process.name] = now + delay
        elif now >= due:
            del self._restart_at[process.name]
            process.start()

    def _serve_new_devices(self) -> None:
        """Let the device worker, and those that may follow it, listen to the queues of devices that are new."""
        now = time.monotonic()
        if now - self._looked_for_devices_at < _DEVICES_SECONDS:
            return
        self._looked_for_devices_at = now
        try:
            new = self._registered_devices() - self._known_devices
            for name in sorted(new):
                node = worker_node(DEVICE_WORKER)
                if self._celery.control.add_consumer(device_queue(name), destination=[node], reply=True, timeout=2):
                    self._known_devices.add(name)
                    self._device_worker().command = device_worker_command(sorted(self._known_devices))
                    say(f"The device worker serves the new device {name}.")
                    self._undescribed.append(name)
            self._describe_new_devices()
        except (ParetuneError, OSError) as error:
            reason = error.explain() if isinstance(error, ParetuneError) else error
            logger.warning("cannot look for new devices: %s", reason)

    def _describe_new_devices(self) -> None:
        """Have new devices described one by one, without waiting for it: it waits for measurements, and may hang."""
        if self._description is not None and self._description.alive:
            return
        if self._description is not None and self._description.exit_status:
            logger.warning("the %s failed; it is tried again at its first job", self._description.name)
        self._description = None
        if self._undescribed:
            self._description = device_description(self._settings, self._undescribed.pop(0))
            self._description.start()

    def _device_worker(self) -> ManagedProcess:
        return next(process for process in self._workers if process.name == f"{DEVICE_WORKER} worker")

    def _registered_devices(self) -> set[str]:
        with self._database.read_session() as session:
            return set(session.exec(select(Device.name)))

    def _processes(self) -> list[ManagedProcess]:
        return ([self._broker] if self._broker else []) + self._workers

    def _stop(self) -> None:
        """Stop everything: first those who work, then the broker."""
        deadline = time.monotonic() + self._settings.shutdown_seconds + _STOP_SECONDS
        if self._description:
            self._description.kill()
        self._stop_group(self._workers, deadline)
        if self._broker:
            self._stop_group([self._broker], deadline)
            say("Paretune has stopped.")

    def _stop_group(self, processes: list[ManagedProcess], deadline: float) -> None:
        for process in processes:
            process.ask_to_stop()
        for process in processes:
            while self._stop_requests < 2 and time.monotonic() < deadline and not process.wait(_LOOK_SECONDS):
                pass
            process.kill()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def request_stop(_number: int, _frame: FrameType | None) -> None:
            self._stop_requests += 1

        previous = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


def say(message: str) -> None:
    """Tell the user something, in one line."""
    sys.stdout.write(message + "\n")
    sys.stdout.flush()
