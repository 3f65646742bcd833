"""Sessions on SQLite and PostgreSQL.

Sessions say what they are for. A *read* session cannot write. A *write* session is one short transaction that commits
when its block ends; on SQLite it takes the write lock at its first statement (``BEGIN IMMEDIATE``), because a
transaction that begins by reading and then writes fails at once, without waiting, when another one wrote in between.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic_core import from_json
from sqlalchemy import Engine
from sqlalchemy import create_engine
from sqlalchemy import event
from sqlalchemy import make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import InterfaceError
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlmodel import Session

from infra.errors import UnavailableError

_BUSY_MILLISECONDS = 10_000
_POOL_SIZE = 20
_POOL_OVERFLOW = 30
_LARGE_JSON = 16_384
_COMMITTED = "sees committed rows only"


def decode_json(text: str | bytes) -> Any:
    """Decode a JSON column; a large one that was read lately is not decoded again.

    What a search reads at every turn, above all ``job.prepared``, is some hundred kilobytes that hardly ever change.
    Nobody may change a decoded value in place: columns are assigned anew, or the session would not notice.
    """
    return _decode_large(text) if len(text) >= _LARGE_JSON else from_json(text)


@lru_cache(maxsize=16)
def _decode_large(text: str | bytes) -> Any:
    return from_json(text)


def database_url(url: str) -> URL:
    """Parse a URL and name the driver that we install: ``postgresql://`` becomes ``postgresql+psycopg://``."""
    parsed = make_url(url)
    if parsed.drivername in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _sqlite_engine(url: URL, *, begin: str, query_only: bool) -> Engine:
    engine = create_engine(url, json_deserializer=decode_json)

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions of its own
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        _use_write_ahead_log(cursor)
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        if query_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _use_write_ahead_log(cursor: Any) -> None:
    """Switch to WAL; the file remembers it. For the switch itself SQLite does not wait as ``busy_timeout`` says."""
    last_try = time.monotonic() + _BUSY_MILLISECONDS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > last_try:
                raise
        time.sleep(0.01)


def _postgresql_engine(url: URL) -> Engine:
    return create_engine(
        url, pool_size=_POOL_SIZE, max_overflow=_POOL_OVERFLOW, pool_pre_ping=True, json_deserializer=decode_json
    )


def sees_committed_rows_only(session: Session) -> bool:
    """Whether nothing that a session reads can be rolled back: it is a read session."""
    return _COMMITTED in session.info


class Database:
    """The engines of one database; create it once in a process, after forking.

    Args:
        url: SQLAlchemy URL, ``sqlite:///path`` or ``postgresql://...``.

    Raises:
        ValueError: Another kind of database, or SQLite in memory, which no second process could see.
    """

    def __init__(self, url: str) -> None:
        parsed = database_url(url)
        backend = parsed.get_backend_name()
        if backend == "sqlite":
            if not parsed.database or parsed.database == ":memory:":
                raise ValueError("SQLite in memory is not shared between processes: give a file")
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
            self._write = _sqlite_engine(parsed, begin="BEGIN IMMEDIATE", query_only=False)
            self._read = _sqlite_engine(parsed, begin="BEGIN", query_only=True)
        elif backend == "postgresql":
            self._write = _postgresql_engine(parsed)
            self._read = self._write.execution_options(postgresql_readonly=True)
        else:
            raise ValueError(f"no support for the database {backend!r}: use sqlite or postgresql")

    @property
    def engine(self) -> Engine:
        """The engine that writes; for migrations and for libraries that want an engine."""
        return self._write

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._write.dialect.name

    @contextmanager
    def read_session(self) -> Iterator[Session]:
        """Open a session that sees committed rows and cannot write.

        Raises:
            UnavailableError: The database does not answer.
        """
        with _translate_errors(), Session(self._read, expire_on_commit=False, info={_COMMITTED: True}) as session:
            yield session

    @contextmanager
    def write_session(self) -> Iterator[Session]:
        """Open one transaction: commits at the end of the block, rolls back when the block raises.

        Keep it short: no network, no file transfer and no computing inside.

        Raises:
            UnavailableError: The database is locked for longer than ten seconds, or does not answer.
        """
        with _translate_errors(), Session(self._write, expire_on_commit=False) as session, session.begin():
            yield session

    def dispose(self) -> None:
        """Close all pooled connections."""
        self._write.dispose()
        self._read.dispose()


@contextmanager
def _translate_errors() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeoutError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        if "readonly" in str(cause):  # a mistake of ours, not of the database
            raise
        raise UnavailableError(
            "The database is not available.",
            hint="Try again in a moment; if it stays so, look at the database server or at the disk.",
        ) from error
