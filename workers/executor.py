"""Does one step: claim it, work on it, finish it, pass on what follows."""

import logging
import os
import socket
import time
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager

from sqlmodel import Session
from sqlmodel import select

from infra import claims
from infra import steps
from infra.database.engine import Database
from infra.database.locks import lock_job
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.device_lease import acquire_device
from infra.disk import disk_full
from infra.errors import CancelledError
from infra.errors import InvalidInputError
from infra.errors import ParetuneError
from infra.errors import RunnerError
from infra.errors import StaleLeaseError
from infra.errors import UnavailableError
from infra.events import append_event
from infra.log import log_context
from infra.queue import StepQueue
from infra.queue import device_of
from infra.relay import relay
from infra.settings import Settings
from infra.steps import ClaimedStep
from infra.store import BlobStore
from infra.store import open_store
from infra.tracing import mark_failed
from infra.tracing import step_span
from profilers.host_lock import HostLock
from workers import shutdown
from workers.failure import fail_for_good
from workers.heartbeat import HandBack
from workers.heartbeat import Heartbeat
from workers.host_share import HostShare
from workers.runner.pool import RunnerPool
from workers.served_devices import describe_if_new
from workers.stage import Stage
from workers.stage import StageContext
from workers.turn import Turn

logger = logging.getLogger(__name__)

_BUSY_SECONDS = 1.0
"""A step whose device is busy is looked at again after this time."""
_AWAY_SECONDS = 5.0
"""A step that needs something that is away is tried again after this time, which doubles with every time."""
_LONGEST_AWAY_SECONDS = 60.0
_DATABASE_SECONDS = 0.5
"""Between two attempts to write what came of a step while the database is away."""


def lease_owner() -> str:
    """Return the name under which this process claims steps: ``host/pid``."""
    return f"{socket.gethostname()}/{os.getpid()}"


class StepExecutor:
    """Everything that a worker process needs to do steps; create it after forking.

    Args:
        settings: The settings.
        stages: The stages by kind.
        queue: Where messages about follow-up steps go.
        registry: Module that maps the names of runner operations to functions.
    """

    def __init__(
        self,
        settings: Settings,
        stages: dict[str, Stage],
        queue: StepQueue,
        registry: str = "workers.operations",
    ) -> None:
        self._settings = settings
        self._stages = stages
        self._queue = queue
        self._database = Database(settings.database_url)
        self._store: BlobStore = open_store(settings.store_url)
        self._runners = RunnerPool(settings, registry)
        self._host_lock = HostLock(settings.host_lock_directory)
        self._turn = Turn()

    def close(self) -> None:
        """End the runners and close the connections."""
        self._runners.close()
        self._database.dispose()

    def run(self, step_id: str) -> bool:
        """Do the step that deserves it most in the queue of ``step_id``, if any waits; see :mod:`infra.claims`.

        Returns:
            Whether this call finished one.
        """
        claimed = self._claim(step_id)
        if claimed is None:
            return False
        ids = {"job_id": claimed.job_id, "trial_id": claimed.trial_id, "step_id": claimed.id, "step": claimed.key}
        with log_context(**ids), step_span(claimed, enabled=self._settings.tracing):
            return self._run(claimed)

    def _run(self, claimed: ClaimedStep) -> bool:
        logger.info("%s of job %s: attempt %d", claimed.key, claimed.job_id, claimed.attempt)
        self._runners.enter(claimed.job_id)
        self._turn.took(claimed.job_id, self._settings.turn_seconds)
        done = False
        try:
            done = self._do(claimed)
        except StaleLeaseError:
            logger.warning("%s of job %s was taken over; its result is thrown away", claimed.key, claimed.job_id)
        finally:
            self._runners.leave()
        self._relay(claimed)
        return done

    def _claim(self, step_id: str) -> ClaimedStep | None:
        lease_seconds = self._settings.lease_seconds
        with self._database.write_session() as session:
            keep = self._turn.job(self._settings.turn_seconds)
            claimed = claims.claim_next(session, step_id, lease_owner(), lease_seconds, keep_job=keep)
            if claimed is None or device_of(claimed.queue) is None:
                return claimed
            device_id = session.exec(select(Job.device_id).where(Job.id == claimed.job_id)).one()
            if acquire_device(session, device_id, claimed, lease_seconds):
                return claimed
            steps.release(session, claimed, delay_seconds=_BUSY_SECONDS)
            return None

    def _do(self, claimed: ClaimedStep) -> bool:
        settings = self._settings
        stage = self._stages.get(claimed.kind)
        with Heartbeat(self._database, claimed, settings.lease_seconds, settings.shutdown_seconds) as heartbeat:
            try:
                if stage is None:
                    raise RunnerError(f"This worker does not know steps of the kind {claimed.kind!r}.")
                with _errors_in_words():
                    output = self._work(stage, claimed, heartbeat)
                    self._persist(heartbeat, lambda: self._finish(stage, claimed, output))
            except HandBack:
                logger.info("handing %s of job %s back", claimed.key, claimed.job_id)
                self._persist(heartbeat, lambda: self._write(claimed, lambda session: steps.release(session, claimed)))
            except CancelledError:
                self._persist(heartbeat, lambda: self._write(claimed, lambda session: steps.cancel(session, claimed)))
            except StaleLeaseError:
                raise
            except UnavailableError as error:
                unavailable = error
                self._persist(heartbeat, lambda: self._postpone(claimed, unavailable))
            except ParetuneError as error:
                failure = error
                self._persist(heartbeat, lambda: self._fail(stage, claimed, failure))
            else:
                return True
        return False

    def _work(self, stage: Stage, claimed: ClaimedStep, heartbeat: Heartbeat) -> JsonObject:
        with self._host(claimed, heartbeat) as share:
            heartbeat.check()
            context = StageContext(
                self._settings, self._database, self._store, self._runners, claimed, heartbeat.check, share
            )
            output = stage.work(context)
            heartbeat.check()
            return output

    @contextmanager
    def _host(self, claimed: ClaimedStep, heartbeat: Heartbeat) -> Iterator[HostShare | None]:
        """Measure alone on this host; compute beside others, but not beside a measurement."""

        def waiting(_seconds: float) -> None:
            heartbeat.check()

        if device_of(claimed.queue) is not None:
            with self._host_lock.exclusive(waiting=waiting, purpose=claimed.key):
                describe_if_new(self._settings, self._database, claimed.job_id)
                yield None
        elif claimed.queue == "compute":
            with HostShare(self._host_lock, waiting, claimed.key) as share:
                yield share
        else:
            yield None

    def _persist(self, heartbeat: Heartbeat, write: Callable[[], None]) -> None:
        """Write the outcome of a step, again and again while the database is away and the lease may still hold.

        A result is not thrown away, nor an attempt lost, because the database was restarted. Writing twice is
        harmless: the second time the lease is gone.
        """
        while True:
            try:
                write()
            except UnavailableError as error:
                if heartbeat.lost or shutdown.requested():
                    raise
                logger.warning("the outcome of a step has to wait: %s", error.explain())
                time.sleep(_DATABASE_SECONDS)
            else:
                return

    def _finish(self, stage: Stage, claimed: ClaimedStep, output: JsonObject) -> None:
        with self._database.write_session() as session:
            lock_job(session, claimed.job_id)
            waited = (session.get_one(Step, claimed.id).error or {}).get("postponed")
            step = steps.finish(session, claimed, output)
            if waited:
                append_event(session, step.job_id, "notice", {"message": "What was missing is back.", "step": step.key})
            stage.finish(session, step, output)

    def _fail(self, stage: Stage | None, claimed: ClaimedStep, error: ParetuneError) -> None:
        retry = not isinstance(error, InvalidInputError)
        logger.warning("%s of job %s failed: %s", claimed.key, claimed.job_id, error.explain())
        mark_failed(error.explain())
        with self._database.write_session() as session:
            lock_job(session, claimed.job_id)
            step = steps.fail(session, claimed, error, retry=retry, retry_seconds=self._settings.retry_seconds)
            if step.state == "failed":
                fail_for_good(session, stage, step, error)
            else:
                notice = {"message": error.message, "step": step.key, "attempt": step.attempt}
                append_event(session, step.job_id, "notice", notice)

    def _postpone(self, claimed: ClaimedStep, error: UnavailableError) -> None:
        logger.warning("%s of job %s has to wait: %s", claimed.key, claimed.job_id, error.explain())

        def hand_back(session: Session) -> Step:
            before = session.get_one(Step, claimed.id).error or {}
            times = before.get("postponed", 0)
            if times == 0 or before["message"] != error.message:  # not the same words every minute
                notice = {"message": error.message, "hint": error.hint, "step": claimed.key}
                append_event(session, claimed.job_id, "notice", notice)
            delay = min(_AWAY_SECONDS * 2**times, _LONGEST_AWAY_SECONDS)
            note = error.to_dict() | {"postponed": times + 1}
            return steps.release(session, claimed, delay_seconds=delay, note=note)

        self._write(claimed, hand_back)

    def _write(self, claimed: ClaimedStep, change: Callable[[Session], Step]) -> None:
        with self._database.write_session() as session:
            lock_job(session, claimed.job_id)
            change(session)

    def _relay(self, claimed: ClaimedStep) -> None:
        """Send messages about follow-up steps at once; what fails here is done by the maintenance loop."""
        try:
            with self._database.write_session() as session:
                claims.wake_limited(session, claimed)
            relay(self._database, self._queue)
        except UnavailableError as error:
            logger.warning("follow-up steps will be sent later: %s", error.explain())


@contextmanager
def _errors_in_words() -> Iterator[None]:
    """Turn what nobody foresaw into an error that can be stored and shown."""
    try:
        yield
    except (ParetuneError, HandBack):
        raise
    except OSError as error:
        raise (disk_full(error) or _unexpected(error)) from error
    except Exception as error:
        raise _unexpected(error) from error


def _unexpected(error: Exception) -> RunnerError:
    logger.exception("unexpected error in a step")
    return RunnerError(
        f"{type(error).__name__}: {str(error)[:500]}",
        hint="This is an error in the service or in a library; the worker's log has the details.",
    )
