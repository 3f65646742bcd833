"""Rows belong to the API key that made them; to every other key they do not exist."""

from collections.abc import Sequence
from typing import Any
from typing import TypeVar

from sqlalchemy.orm import defer
from sqlmodel import Session
from sqlmodel import SQLModel

from api.auth import Principal
from infra.errors import NotFoundError

Owned = TypeVar("Owned", bound=SQLModel)

_HINTS = {
    "job": "`paretune jobs`, or GET /v1/jobs, lists the ones of this API key.",
    "upload": "It is complete, was given up, or was never made. For a day its completion can be asked for again; else "
    "send the file again in a new upload.",
}
"""Where the name of the route does not follow from the table's, or more is to be said."""


def get_owned(
    session: Session,
    table: type[Owned],
    identifier: str,
    principal: Principal,
    *,
    later: Sequence[Any] = (),
    lock: bool = False,
) -> Owned:
    """Return the row of ``table``, which must have an ``owner``.

    Args:
        session: Where to read.
        table: The table.
        identifier: The row's id.
        principal: Who asks.
        later: Large columns that are read only when somebody looks at them, while the session is open.
        lock: Whether nobody else may change the row until this transaction ends.

    Raises:
        NotFoundError: There is none, or it belongs to another key: the answer is the same.
    """
    row: Any = session.get(table, identifier, options=[defer(column) for column in later], with_for_update=lock)
    if row is None or row.owner != principal.id:
        name = table.__name__.lower()
        hint = _HINTS.get(name, f"GET /v1/{name}s lists the ones of this API key.")
        raise NotFoundError(f"There is no {name} {identifier[:100]!r}.", hint=hint)
    found: Owned = row
    return found
