"""Cursor pagination: newest first, stable while rows are added."""

import base64
import binascii
import json
from datetime import datetime
from typing import Annotated
from typing import Any
from typing import Generic
from typing import TypeVar

from fastapi import Query
from pydantic import BaseModel
from pydantic import Field
from sqlalchemy import tuple_
from sqlmodel import Session
from sqlmodel.sql.expression import SelectOfScalar

from infra.errors import InvalidInputError

Row = TypeVar("Row")
View = TypeVar("View")

Limit = Annotated[int, Query(ge=1, le=200, description="Largest number of items.")]
Cursor = Annotated[str | None, Query(max_length=300, description="`next_cursor` of the page before.")]


class Page(BaseModel, Generic[View]):
    """One page of a list."""

    items: list[View]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last one.")


def encode_cursor(created_at: datetime, identifier: str) -> str:
    """Return an opaque text that stands for a place in a list ordered by (created_at, id)."""
    return base64.urlsafe_b64encode(json.dumps([created_at.isoformat(), identifier]).encode()).decode()


def decode_cursor(cursor: str) -> tuple[datetime, str]:
    """Inverse of :func:`encode_cursor`.

    Raises:
        InvalidInputError: The text is not a cursor.
    """
    try:
        moment, identifier = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None or not isinstance(identifier, str):
            raise ValueError("not a cursor")
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise InvalidInputError(
            "The cursor is not valid.",
            hint="Use next_cursor of the previous page, or leave it out.",
            errors=[{"field": "cursor", "message": "is not a cursor of this list"}],
        ) from None
    return created_at, identifier


def page_of(
    session: Session, statement: SelectOfScalar[Row], table: Any, limit: int, cursor: str | None
) -> tuple[list[Row], str | None]:
    """Return one page of ``statement``, newest first, and the cursor of the next.

    Args:
        session: Where to read.
        statement: Selects rows of ``table``, unordered.
        table: A table with ``created_at`` and ``id``.
        limit: Page size.
        cursor: Where the previous page ended.
    """
    if cursor is not None:
        statement = statement.where(tuple_(table.created_at, table.id) < tuple_(*decode_cursor(cursor)))
    rows = list(session.exec(statement.order_by(table.created_at.desc(), table.id.desc()).limit(limit + 1)))
    if len(rows) <= limit:
        return rows, None
    last: Any = rows[limit - 1]
    return rows[:limit], encode_cursor(last.created_at, last.id)
