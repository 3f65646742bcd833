"""Keeps a lease alive while a step is worked on, and notices when the work should stop."""

import logging
import threading
import time
from types import TracebackType

from infra import steps
from infra.database.engine import Database
from infra.device_lease import renew_device
from infra.errors import CancelledError
from infra.errors import ParetuneError
from infra.errors import StaleLeaseError
from infra.steps import ClaimedStep
from infra.steps import Lease
from workers import shutdown

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0


class HandBack(BaseException):
    """The worker stops: the step goes back into the queue. Not an error, and not to be caught as one."""


class Heartbeat:
    """A thread that renews the lease three times as often as needed and looks for a cancel every second.

    Args:
        database: Where the step is.
        step: The step.
        lease_seconds: The lease's length.
        shutdown_seconds: How long the work may go on after the worker was told to stop.
    """

    def __init__(self, database: Database, step: ClaimedStep, lease_seconds: float, shutdown_seconds: float) -> None:
        self._database = database
        self._step = step
        self._lease_seconds = lease_seconds
        self._shutdown_seconds = shutdown_seconds
        self._lease: Lease = "held"
        self._stop = threading.Event()
        self._shutdown_at: float | None = None
        self._thread = threading.Thread(target=self._beat, name=f"heartbeat-{step.id}", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def lost(self) -> bool:
        """Whether the lease is known, or has to be taken, to be lost."""
        return self._lease == "lost"

    def check(self) -> None:
        """Return if the work should go on.

        Raises:
            CancelledError: The job was cancelled.
            StaleLeaseError: The lease was lost.
            HandBack: The worker stops.
        """
        if self._lease == "cancelled":
            raise CancelledError("The job was cancelled.")
        if self._lease == "lost":
            raise StaleLeaseError(f"The lease on step {self._step.id} was lost.")
        if shutdown.requested():
            now = time.monotonic()
            self._shutdown_at = self._shutdown_at or now
            if now - self._shutdown_at >= self._shutdown_seconds:
                raise HandBack

    def _beat(self) -> None:
        renewed_at = time.monotonic()
        while self._lease == "held" and not self._stop.wait(min(_LOOK_SECONDS, self._lease_seconds / 3)):
            started = time.monotonic()
            try:
                if started - renewed_at >= self._lease_seconds / 3:
                    self._lease = self._renew()
                    renewed_at = started
                else:
                    with self._database.read_session() as session:
                        self._lease = steps.look(session, self._step)
            except ParetuneError as error:
                logger.warning("no heartbeat for step %s: %s", self._step.id, error.explain())
                if started - renewed_at > self._lease_seconds:
                    self._lease = "lost"

    def _renew(self) -> Lease:
        with self._database.write_session() as session:
            renew_device(session, self._step, self._lease_seconds)
            return steps.renew(session, self._step, self._lease_seconds)
