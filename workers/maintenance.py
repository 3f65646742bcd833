"""What has to happen now and then, whatever the workers do: ``python -m workers.maintenance``.

Everything here is idempotent: any number of these processes may run, and one that is killed leaves nothing half done.
"""

import logging
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime
from datetime import timedelta
from typing import Any

import psutil
from sqlalchemy import ColumnElement
from sqlalchemy import exists
from sqlalchemy.orm import defer
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra import steps
from infra.clock import utcnow
from infra.database.clock import database_now
from infra.database.engine import Database
from infra.database.locks import lock_job
from infra.database.models import Job
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.errors import UnavailableError
from infra.errors import from_dict
from infra.events import append_event
from infra.garbage import collect_blobs
from infra.log import configure_logging
from infra.queue import StepQueue
from infra.relay import recover_lost_messages
from infra.relay import relay
from infra.retention import apply_retention
from infra.settings import Settings
from infra.settings import load_settings
from infra.store import open_store
from search.job_clock import LONGEST_GAP
from search.job_clock import is_abandoned
from search.job_clock import note_time
from search.job_clock import tell_queued
from search.lifecycle import ENDED
from search.lifecycle import LEARNING_STAGES
from search.lifecycle import TRIAL_STAGES
from search.lifecycle import request_tick
from workers.failure import fail_for_good
from workers.stage import Stage

logger = logging.getLogger(__name__)

_LOST_MESSAGES_SECONDS = 10.0
_TICK_SECONDS = 30.0
_TIMED_STAGES = (*TRIAL_STAGES, *LEARNING_STAGES)
"""Stages that the coordinator ends when their time is over, whatever is under way."""
_UNSERVED_SECONDS = 60.0
_WORKDIRS_SECONDS = 60.0
_GARBAGE_SECONDS = 600.0


@dataclass
class _Duty:
    do: Callable[[], object]
    every: float
    due_at: float = field(default_factory=time.monotonic)


class Maintenance:
    """The duties and their intervals.

    Args:
        settings: The settings.
        stages: The stages by kind, to fail what has no attempts left.
    """

    def __init__(self, settings: Settings, stages: dict[str, Stage]) -> None:
        self._settings = settings
        self._stages = stages
        self._database = Database(settings.database_url)
        self._queue = StepQueue(settings)
        self._store = open_store(settings.store_url)
        self._idle_queues: dict[str, float] = {}
        self._looked_at_queues: datetime | None = None
        often = settings.maintenance_seconds
        self._duties = [
            _Duty(self.reap, often),
            _Duty(self.wake_jobs, _TICK_SECONDS),
            _Duty(self.tell_queued_jobs, _UNSERVED_SECONDS),
            _Duty(self.relay, often),
            _Duty(self.recover_lost_messages, _LOST_MESSAGES_SECONDS),
            _Duty(self.remove_workdirs, _WORKDIRS_SECONDS),
            _Duty(self.apply_retention, _GARBAGE_SECONDS),
            _Duty(self.collect_garbage, _GARBAGE_SECONDS),
        ]

    def run(self, stop: threading.Event) -> None:
        """Do what is due until ``stop`` is set."""
        while not stop.wait(self._settings.maintenance_seconds):
            self.run_due()

    def run_due(self) -> None:
        """Do what is due now; a duty that fails is done again at its next turn and keeps no other from its own."""
        now = time.monotonic()
        for duty in self._duties:
            if duty.due_at > now:
                continue
            duty.due_at = now + duty.every
            try:
                duty.do()
            except UnavailableError as error:
                logger.warning("%s", error.explain())
            except Exception:
                logger.exception("maintenance failed")

    def close(self) -> None:
        """Close the connections."""
        self._database.dispose()

    def relay(self) -> int:
        """Send messages about steps that have none."""
        return relay(self._database, self._queue)

    def recover_lost_messages(self) -> int:
        """Send messages again that the broker has lost."""
        with self._database.read_session() as session:
            waiting = select(Step.queue).where(Step.state == "queued", col(Step.dispatched_at).is_not(None)).distinct()
            queues = list(session.exec(waiting))
        return recover_lost_messages(self._database, self._queue, queues)

    def reap(self) -> int:
        """Take back the steps of workers that disappeared; fail those that have no attempts left."""
        dead = self._dead_owners() if self._settings.embedded else []
        with self._database.read_session() as session:
            jobs = steps.jobs_to_reap(session, dead_owners=dead)
        return sum(self._reap_job(job_id, dead) for job_id in jobs)

    def _reap_job(self, job_id: str, dead: list[str]) -> int:
        with self._database.write_session() as session:
            lock_job(session, job_id)
            reaped = steps.reap(session, job_id, dead_owners=dead)
            for step in reaped:
                logger.warning("the worker of %s of job %s disappeared", step.key, step.job_id)
                error = _error_of(step)
                if step.state == "failed":
                    fail_for_good(session, self._stages.get(step.kind), step, error)
                else:
                    notice = {"message": error.message, "step": step.key, "attempt": step.attempt}
                    append_event(session, job_id, "notice", notice)
        return len(reaped)

    def _dead_owners(self) -> list[str]:
        """Owners of leases that were processes of this host.

        Only where all workers are on this host and share its process ids: in the embedded service. It makes a killed
        worker's step run again within a second.
        """
        prefix = f"{socket.gethostname()}/"
        with self._database.read_session() as session:
            owners = session.exec(select(Step.lease_owner).where(Step.state == "running").distinct()).all()
        return [
            owner
            for owner in owners
            if owner is not None and owner.startswith(prefix) and not _alive(int(owner.removeprefix(prefix)))
        ]

    def wake_jobs(self) -> int:
        """Count the time of running jobs; let the coordinator look where it may be over, or where nobody works.

        Returns:
            Number of jobs to be looked at.
        """
        with self._database.read_session() as session:
            forgotten = (col(Job.state) == "queued") & ~_has_open_steps()
            ids = session.exec(select(Job.id).where((col(Job.state) == "running") | forgotten)).all()
        return sum(self._wake_job(job_id) for job_id in ids)

    def _wake_job(self, job_id: str) -> bool:
        with self._database.write_session() as session:
            lock_job(session, job_id)
            large: Any = col(Job.prepared)
            job = session.exec(select(Job).where(Job.id == job_id).options(defer(large))).one_or_none()
            if job is None or job.state in ENDED:
                return False
            note_time(session, job, database_now(session))
            unattended = session.exec(select(~_has_open_steps()).where(Job.id == job_id)).one()
            if job.stage in _TIMED_STAGES or is_abandoned(job) or unattended:
                request_tick(session, job)
                return True
        return False

    def tell_queued_jobs(self) -> int:
        """Tell jobs that wait for their first step when no worker takes any."""
        with self._database.write_session() as session:
            now = database_now(session)
            looked = self._looked_at_queues or now
            gap = min(LONGEST_GAP, max(0.0, (now - looked).total_seconds()))
            self._looked_at_queues = now
            return tell_queued(session, now, self._idle_queues, gap)

    def remove_workdirs(self) -> int:
        """Remove the work directories of jobs that are over, when no runner of theirs can be left."""
        removed = 0
        over_since = utcnow() - timedelta(seconds=2 * self._settings.runner_idle_seconds)
        for path in self._settings.work.glob("*"):
            with self._database.read_session() as session:
                if _in_use(session, path.name, over_since):
                    continue
            shutil.rmtree(path, ignore_errors=True)
            removed += 1
        return removed

    def apply_retention(self) -> dict[str, int]:
        """Delete rows that are older than the settings allow."""
        return apply_retention(self._database, self._settings)

    def collect_garbage(self) -> int:
        """Remove blobs that no row needs."""
        return collect_blobs(self._database, self._store, self._settings.blob_grace_seconds)


def _has_open_steps() -> ColumnElement[bool]:
    return exists().where(col(Step.job_id) == col(Job.id), col(Step.state).in_(("queued", "running")))


def _in_use(session: Session, job_id: str, over_since: datetime) -> bool:
    job = session.get(Job, job_id)
    if job is None:
        return False
    used = select(Step.id).where(
        Step.job_id == job_id, col(Step.state).in_(("queued", "running")) | (col(Step.finished_at) > over_since)
    )
    return job.state not in ENDED or session.exec(used.limit(1)).first() is not None


def _error_of(step: Step) -> ParetuneError:
    return from_dict(step.error or {})


def _alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid))


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    from workers.stages import STAGES

    settings = load_settings()
    configure_logging(settings.log_format)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    maintenance = Maintenance(settings, STAGES)
    maintenance.run(stop)
    maintenance.close()


if __name__ == "__main__":
    main()
