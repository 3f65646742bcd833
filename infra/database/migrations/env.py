"""Alembic's entry point; run through :mod:`infra.database.migrate`, which passes the connection."""

from typing import Any
from typing import Literal

from alembic import context
from sqlalchemy import JSON
from sqlalchemy import Connection
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import AutoString

from infra.database import models
from infra.database.types import UTCDateTime

assert models.Job.metadata is SQLModel.metadata  # the import fills it


def _render_item(kind: str, item: Any, _autogenerate_context: Any) -> str | Literal[False]:
    """Write plain SQLAlchemy types into migrations: they must not change when our classes do."""
    if kind == "type" and isinstance(item, UTCDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, AutoString):
        return f"sa.String(length={item.length})" if item.length else "sa.String()"
    if kind == "type" and isinstance(item, JSON):
        return "_JSON"
    return False


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        transactional_ddl=True,
        render_item=_render_item,
    )
    with context.begin_transaction():
        context.run_migrations()


_run(context.config.attributes["connection"])
