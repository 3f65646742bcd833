"""``INSERT`` with ``ON CONFLICT``, which each database dialect has in its own class."""

from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite
from sqlmodel import Session
from sqlmodel import SQLModel


def insert_into(session: Session, table: type[SQLModel]) -> sqlite.Insert | postgresql.Insert:
    """Return an ``INSERT`` into a table that knows ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    return insert(table)
