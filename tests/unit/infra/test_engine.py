"""Sessions on both databases: what is for reading cannot write, and writers wait for each other."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlmodel import Session
from sqlmodel import select

from infra.database.clock import database_time
from infra.database.engine import Database
from infra.database.models import AuditEntry
from infra.database.models import Job
from infra.errors import UnavailableError
from tests.helpers.rows import add_job


def entry(action: str) -> AuditEntry:
    return AuditEntry(principal="p", action=action, target="t", details={"n": None})


def test_a_write_session_commits_at_its_end_or_not_at_all(database: Database) -> None:
    with database.write_session() as session:
        session.add(entry("kept"))

    def interrupted(session: Session) -> None:
        session.add(entry("lost"))
        session.flush()
        raise KeyError

    with pytest.raises(KeyError), database.write_session() as session:
        interrupted(session)
    with database.read_session() as session:
        rows = session.exec(select(AuditEntry)).all()
    assert [row.action for row in rows] == ["kept"]
    assert rows[0].created_at.utcoffset() is not None


def test_a_read_session_cannot_write(database: Database) -> None:
    def write(session: Session) -> None:
        session.add(entry("x"))
        session.commit()

    with pytest.raises(DBAPIError, match=r"read-?only"), database.read_session() as session:
        write(session)


def test_none_is_null_in_a_json_column(database: Database) -> None:
    with database.write_session() as session:
        job = add_job(session)
        job.error = {"a": 1}
        session.flush()
        job.error = None
    with database.read_session() as session:
        assert session.exec(select(Job).where(Job.error.is_(None))).one().id == job.id  # type: ignore[union-attr]


def test_read_then_write_transactions_do_not_lose_updates(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    AuditEntry.metadata.create_all(database.engine)
    with database.write_session() as session:
        job_id = add_job(session).id

    def increment() -> None:
        for _ in range(20):
            with database.write_session() as session:
                job = session.get_one(Job, job_id)
                time.sleep(0.001)
                job.version += 1

    threads = [threading.Thread(target=increment) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.read_session() as session:
        assert session.get_one(Job, job_id).version == 81
    database.dispose()


def test_a_locked_database_is_said_to_be_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.database.engine._BUSY_MILLISECONDS", 50)
    database = Database(f"sqlite:///{tmp_path / 'x.db'}")
    AuditEntry.metadata.create_all(database.engine)

    def write() -> None:
        with database.write_session() as session:
            session.add(entry("second"))

    with database.write_session() as session:
        session.add(entry("first"))
        session.flush()
        with pytest.raises(UnavailableError) as caught:
            write()
    assert caught.value.message == "The database is not available."
    assert caught.value.explain() == "The database is not available. (OperationalError: database is locked)"
    database.dispose()


def test_a_database_that_is_away_is_said_to_be_unavailable() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1")
    with pytest.raises(UnavailableError) as caught, database.read_session() as session:
        session.exec(select(AuditEntry))
    assert "127.0.0.1" not in str(caught.value.to_dict())
    assert "127.0.0.1" in caught.value.explain()


@pytest.mark.parametrize("url", ["sqlite://", "mysql://host/db"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises((ValueError, ImportError)):
        Database(url)


def test_the_clock_of_the_database(database: Database) -> None:
    with database.write_session() as session:
        session.add(entry("now"))
    with database.read_session() as session:
        before, now, after = session.execute(select(database_time(-2.5), database_time(), database_time(3600))).one()
        assert (now - before).total_seconds() == pytest.approx(2.5, abs=0.5)
        assert (after - now).total_seconds() == pytest.approx(3600, abs=0.5)
        for offset, found in ((-10.0, 0), (10.0, 1)):
            older = select(AuditEntry).where(AuditEntry.created_at < database_time(offset))
            assert len(session.exec(older).all()) == found


def test_a_new_file_that_another_process_is_writing_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "new.db", isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE t (x)")
    other.execute("BEGIN IMMEDIATE")  # the file is not in WAL mode yet, and cannot be switched now
    release = threading.Timer(0.3, other.execute, ["COMMIT"])
    release.start()
    database = Database(f"sqlite:///{tmp_path / 'new.db'}")
    with database.read_session() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar_one() == "wal"
    database.dispose()
    release.join()
    other.close()


def test_a_large_column_is_decoded_once_until_it_changes(database: Database) -> None:
    def details() -> object:
        with database.read_session() as session:
            return session.exec(select(AuditEntry)).one().details

    with database.write_session() as session:
        session.add(AuditEntry(principal="p", action="a", target="t", details={"n": "x" * 20_000}))
    first = details()
    assert details() is first
    with database.write_session() as session:
        session.exec(select(AuditEntry)).one().details = {"n": "y" * 20_000}
    assert details() == {"n": "y" * 20_000}
