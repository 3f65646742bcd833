"""One reader of the event table for all who watch: it looks for new rows and wakes the watchers of their jobs."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from anyio import to_thread
from sqlalchemy import func
from sqlmodel import col
from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Event
from infra.database.models import Job
from infra.errors import UnavailableError

POLL_SECONDS = 0.5
BATCH = 500
END_STATES = ("succeeded", "failed", "cancelled")
_MOST_AT_ONCE = 10_000


class Reading(NamedTuple):
    """Events of a job in order, at most :data:`BATCH`, and whether the job was over before they were read."""

    events: list[Event]
    over: bool


class EventHub:
    """Wakes watchers when their job has new events.

    The table is polled while there is at least one watcher, twice a second whatever their number. Those who are woken
    together share one reading of the rows. Waking a watcher too often does no harm, and it also looks by itself after
    :data:`LOOK_SECONDS`.
    """

    LOOK_SECONDS = 15.0

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._readings: dict[tuple[str, int], asyncio.Task[Reading]] = {}
        self._poller: asyncio.Task[None] | None = None
        self.closing = asyncio.Event()

    @contextmanager
    def watch(self, job_id: str) -> Iterator[asyncio.Event]:
        """Return an event that is set whenever the job may have news; clear it before reading."""
        news = asyncio.Event()
        self._watchers.setdefault(job_id, set()).add(news)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            yield news
        finally:
            self._watchers[job_id].discard(news)
            if not self._watchers[job_id]:
                del self._watchers[job_id]

    async def wait(self, news: asyncio.Event) -> None:
        """Wait for news, for the service's end, or for :data:`LOOK_SECONDS`."""
        waits = [asyncio.create_task(news.wait()), asyncio.create_task(self.closing.wait())]
        try:
            await asyncio.wait(waits, timeout=self.LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()

    async def read(self, job_id: str, after: int) -> Reading:
        """Return the events of a job after an id; whoever asks for the same meanwhile gets the same."""
        key = (job_id, after)
        task = self._readings.get(key)
        if task is None:
            task = asyncio.create_task(to_thread.run_sync(self._read, job_id, after))
            self._readings[key] = task
            task.add_done_callback(lambda done: self._readings.get(key) is done and self._readings.pop(key))
        return await asyncio.shield(task)  # a watcher that goes away does not stop the others

    def close(self) -> None:
        """Let all watchers end; safe to call from a signal handler's thread through ``call_soon_threadsafe``."""
        self.closing.set()

    async def _poll(self) -> None:
        last: int | None = None
        while self._watchers and not self.closing.is_set():
            try:
                last, jobs = await to_thread.run_sync(self._look, last)
            except UnavailableError:
                jobs = set()
            # A reading that began before the news may be without them: the woken ones begin a new one.
            self._readings = {key: task for key, task in self._readings.items() if key[0] not in jobs}
            for job_id in jobs:
                for news in self._watchers.get(job_id, ()):
                    news.set()
            await asyncio.sleep(POLL_SECONDS)

    def _read(self, job_id: str, after: int) -> Reading:
        with self._database.read_session() as session:
            state = session.exec(select(Job.state).where(Job.id == job_id)).one_or_none()
            statement = select(Event).where(Event.job_id == job_id, col(Event.id) > after).order_by(col(Event.id))
            return Reading(list(session.exec(statement.limit(BATCH))), state is None or state in END_STATES)

    def _look(self, last: int | None) -> tuple[int, set[str]]:
        """Return the newest id, and the jobs that have events after ``last``."""
        with self._database.read_session() as session:
            if last is None:
                return session.exec(select(func.max(Event.id))).one() or 0, set(self._watchers)
            statement = select(Event.id, Event.job_id).where(col(Event.id) > last).order_by(col(Event.id))
            rows = session.exec(statement.limit(_MOST_AT_ONCE)).all()
        return max((row[0] or 0 for row in rows), default=last), {row[1] for row in rows}
