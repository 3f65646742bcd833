"""Time as the database sees it, so that leases do not depend on the clocks of the workers."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy import literal
from sqlalchemy import select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import Session
from sqlalchemy.sql.functions import FunctionElement

from infra.database.types import UTCDateTime


class _DatabaseTime(FunctionElement[datetime]):
    """``_DatabaseTime(seconds)`` is the time of the database that many seconds from now."""

    type = UTCDateTime()
    inherit_cache = True
    name = "database_time"


@compiles(_DatabaseTime, "sqlite")
def _sqlite(element: _DatabaseTime, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    # In the text form that SQLAlchemy stores, so that comparing the texts compares the times.
    return f"(strftime('%Y-%m-%d %H:%M:%f', 'now', {seconds} || ' seconds') || '000')"


@compiles(_DatabaseTime, "postgresql")
def _postgresql(element: _DatabaseTime, compiler: Any, **options: Any) -> str:
    seconds = compiler.process(element.clauses, **options)
    return f"(clock_timestamp() + make_interval(secs => {seconds}))"


def database_time(offset_seconds: float = 0.0) -> ColumnElement[datetime]:
    """Return an SQL expression: the database's clock now, plus ``offset_seconds``."""
    return _DatabaseTime(literal(float(offset_seconds)))


def database_now(session: Session) -> datetime:
    """Return the database's clock now: for times that processes of several hosts compare."""
    moment: datetime = session.execute(select(database_time())).scalar_one()
    return moment
