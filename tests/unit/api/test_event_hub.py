"""Watchers of one job share what they read, and miss nothing by it."""

import asyncio
import threading
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy

from api.events.hub import EventHub
from infra.database.engine import Database
from infra.events import append_event
from infra.settings import Settings
from tests.helpers.rows import add_job


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database_url)
    yield database
    database.dispose()


@contextmanager
def at_each_reading(database: Database, call: Callable[[], object]) -> Iterator[None]:
    """Call something after each select of a job's events, in the thread that reads."""

    def after(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "FROM event" in statement and "event.payload" in statement:
            call()

    sqlalchemy.event.listen(database._read, "after_cursor_execute", after)
    try:
        yield
    finally:
        sqlalchemy.event.remove(database._read, "after_cursor_execute", after)


def test_watchers_at_the_same_event_share_one_reading(database: Database) -> None:
    with database.write_session() as session:
        job_id = add_job(session).id
        append_event(session, job_id, "notice", {"message": "first"})
    readings: list[int] = []

    async def watch_together() -> list[list[str]]:
        hub = EventHub(database)
        found = await asyncio.gather(*(hub.read(job_id, 0) for _ in range(30)))
        assert (await hub.read(job_id, found[0].events[-1].id or 0)).events == []
        return [[event.kind for event in reading.events] for reading in found]

    with at_each_reading(database, lambda: readings.append(1)):
        assert asyncio.run(watch_together()) == [["notice"]] * 30
    assert len(readings) == 2


def test_who_is_woken_by_news_does_not_join_an_older_reading(database: Database) -> None:
    with database.write_session() as session:
        job_id = add_job(session).id
    first, go_on = threading.Event(), threading.Event()

    def hold_the_first() -> None:
        if not first.is_set():
            first.set()
            go_on.wait(20)

    async def watch() -> tuple[int, int]:
        hub = EventHub(database)
        with hub.watch(job_id) as news:
            while not news.is_set():  # the poller has begun
                await hub.wait(news)
            old = asyncio.create_task(hub.read(job_id, 0))
            await asyncio.to_thread(first.wait, 20)
            news.clear()
            with database.write_session() as session:
                append_event(session, job_id, "notice", {"message": "new"})
            await hub.wait(news)
            new = await hub.read(job_id, 0)
            go_on.set()
            return len((await old).events), len(new.events)

    with at_each_reading(database, hold_the_first):
        assert asyncio.run(asyncio.wait_for(watch(), 30)) == (0, 1)
