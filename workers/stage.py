"""What a stage is, and what it can use."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO
from typing import Protocol

from sqlmodel import Session

from infra import blobs
from infra.database.engine import Database
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.errors import UnavailableError
from infra.events import append_event
from infra.settings import Settings
from infra.shared_results import Shared
from infra.shared_results import use_shared
from infra.steps import ClaimedStep
from infra.store import BlobRef
from infra.store import BlobStore
from workers.host_share import HostShare
from workers.runner.operation import Role
from workers.runner.pool import RunnerPool
from workers.runner.process import RunnerProcess

_PROGRESS_SECONDS = 0.5


class RunnerHandle:
    """A runner as a stage sees it: stops when the job is cancelled, reports progress to the job's watchers."""

    def __init__(
        self,
        runner: RunnerProcess,
        progress: Callable[[JsonObject], None],
        check: Callable[[], None],
        host: HostShare | None = None,
    ) -> None:
        self._runner = runner
        self._progress = progress
        self._check = check
        self._host = host

    def call(self, operation: str, arguments: JsonObject, *, timeout: float | None = None) -> JsonObject:
        """Do an operation in the runner; see :meth:`RunnerProcess.call`."""
        return self._runner.call(operation, arguments, timeout=timeout, on_progress=self._progress, check=self._look)

    def _look(self) -> None:
        self._check()
        if self._host is not None:
            self._host.make_way(
                self._runner, lambda: self._progress({"doing": "waiting for a measurement on this host"})
            )

    def close(self) -> None:
        """End the runner, so that the next call gets a fresh process."""
        self._runner.close()


class StageContext:
    """Everything that a stage may use while it works.

    Attributes:
        settings: The settings.
        store: The artifact store.
        step: A plain copy of the step.
        workdir: Directory for files of this job on this host. It stays between the steps of the job, and goes after
            its end; nothing in it may be relied on, because the next step may run on another host.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        store: BlobStore,
        runners: RunnerPool,
        step: ClaimedStep,
        check: Callable[[], None],
        host: HostShare | None = None,
    ) -> None:
        self.settings = settings
        self.store = store
        self.step = step
        self.workdir = settings.work / step.job_id
        self.workdir.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._database = database
        self._runners = runners
        self._check = check
        self._host = host
        self._reported_at = -_PROGRESS_SECONDS

    def read_session(self) -> AbstractContextManager[Session]:
        """Open a session that can read."""
        return self._database.read_session()

    def shared(self, key: str) -> Shared | None:
        """Return what an earlier job has left under ``key``; see :func:`infra.shared_results.use_shared`."""
        with self._database.write_session() as session:
            return use_shared(session, key)

    def put_file(self, source: BinaryIO | Path) -> BlobRef:
        """Store bytes for good; see :func:`infra.blobs.put_file`."""
        return blobs.put_file(self._database, self.store, source)

    def materialise(self, sha256: str, path: Path) -> Path:
        """Put a verified, read-only copy of a blob at ``path``; see :func:`infra.blobs.materialise`."""
        return blobs.materialise(self.store, sha256, path)

    def runner(self, role: Role) -> RunnerHandle:
        """Return the job's runner of a role in this worker.

        Raises:
            RunnerError: It does not start.
        """
        return RunnerHandle(self._runners.get(role, self.workdir), self.progress, self.check_cancelled, self._host)

    def progress(self, payload: JsonObject) -> None:
        """Append a progress event; more than two a second are dropped."""
        now = time.monotonic()
        if now - self._reported_at < _PROGRESS_SECONDS:
            return
        self._reported_at = now
        try:
            with self._database.write_session() as session:
                append_event(session, self.step.job_id, "progress", {"step": self.step.kind, **payload})
        except UnavailableError:
            return  # progress may get lost

    def check_cancelled(self) -> None:
        """Return if the work should go on; call it now and then in long work outside a runner.

        Raises:
            CancelledError: The job was cancelled.
            StaleLeaseError: The step was taken over.
        """
        self._check()


class Stage(Protocol):
    """The work of one kind of step."""

    kind: str

    def work(self, context: StageContext) -> JsonObject:
        """Do the work, outside of transactions.

        It may run more than once for the same step, even at the same time in two places: same input, same output.
        Bytes go to the artifact store before their digests are returned.

        Returns:
            What ``finish`` needs: JSON, kept in ``step.output``.

        Raises:
            InvalidInputError: The user's input is at fault; not tried again.
            UnavailableError: Something is away for the moment; tried again later, without counting.
            ParetuneError: Anything else; tried again as long as there are attempts left.
        """

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Write what follows from the output, in the transaction that marks the step done.

        Rows, events and follow-up steps; no network, no computing.
        """

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Fail the trial or the job, in the transaction that marks the step failed for good."""
