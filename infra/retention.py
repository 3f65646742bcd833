"""Deletes rows whose time is over; garbage collection then takes the bytes that nothing refers to any more."""

import logging
from datetime import datetime
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement
from sqlalchemy import delete
from sqlalchemy import exists
from sqlmodel import Session
from sqlmodel import SQLModel
from sqlmodel import col
from sqlmodel import select

from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import AuditEntry
from infra.database.models import Dataset
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import ModelFile
from infra.database.models import SharedResult
from infra.database.models import SharedSource
from infra.database.models import Step
from infra.database.models import Upload
from infra.settings import Settings

logger = logging.getLogger(__name__)

_PASSING_KINDS = ("progress", "notice")
_BATCH = 500
"""Rows that one transaction deletes, so that nobody waits long for the database."""


def apply_retention(database: Database, settings: Settings) -> dict[str, int]:
    """Delete what is older than the settings ``retain_*`` allow. May run anywhere, any number of times at once.

    Exports that are being made keep their job. Models and datasets belong to their users and stay.

    Returns:
        Number of rows by kind: ``jobs``, ``events``, ``uploads``, ``audit``, ``shared``; their own rows not counted.

    Raises:
        UnavailableError: The database does not answer.
    """
    removed = {
        "jobs": _delete(database, Job, col(Job.id), _ended_before(settings.retain_jobs_seconds), ~_has_open_steps()),
        "events": _delete_events(database, settings.retain_events_seconds),
        "uploads": _delete(database, Upload, col(Upload.id), _before(Upload, settings.retain_uploads_seconds)),
        "audit": _delete(database, AuditEntry, col(AuditEntry.id), _before(AuditEntry, settings.retain_audit_seconds)),
        "shared": _delete(database, SharedResult, col(SharedResult.key), _unused(settings.retain_shared_seconds)),
    }
    if any(removed.values()):
        logger.info("removed what is older than the settings allow: %s", removed)
    return removed


def _delete(database: Database, table: type[SQLModel], key: Any, *conditions: ColumnElement[bool] | None) -> int:
    """Delete the rows that meet all conditions; nothing if one of them is ``None``."""
    known = [condition for condition in conditions if condition is not None]
    if len(known) < len(conditions):
        return 0
    removed = 0
    while True:
        with database.write_session() as session:
            count = _delete_batch(session, table, key, known)
        removed += count
        if count < _BATCH:
            return removed


def _delete_batch(session: Session, table: type[SQLModel], key: Any, conditions: list[ColumnElement[bool]]) -> int:
    batch = session.scalars(select(key).where(*conditions).limit(_BATCH)).all()
    session.execute(delete(table).where(key.in_(batch), *conditions).execution_options(synchronize_session=False))
    return len(batch)


def _delete_events(database: Database, seconds: float | None) -> int:
    ended = _ended_before(seconds)
    if ended is None:
        return 0
    over = exists().where(col(Job.id) == col(Event.job_id), ended)
    return _delete(database, Event, col(Event.id), col(Event.kind).in_(_PASSING_KINDS), over)


def _ended_before(seconds: float | None) -> ColumnElement[bool] | None:
    return None if seconds is None else col(Job.finished_at) < _ago(seconds)


def _before(table: type[Upload] | type[AuditEntry], seconds: float | None) -> ColumnElement[bool] | None:
    return None if seconds is None else col(table.created_at) < _ago(seconds)


def _unused(seconds: float) -> ColumnElement[bool]:
    """Shared results that no job has used for so long, or whose model or data nobody has any more."""
    sha256 = col(SharedSource.sha256)
    owned = exists().where(col(ModelFile.sha256) == sha256) | exists().where(col(Dataset.sha256) == sha256)
    lost = exists().where(col(SharedSource.key) == col(SharedResult.key), ~owned)
    return (col(SharedResult.used_at) < _ago(seconds)) | lost


def _ago(seconds: float) -> datetime:
    return utcnow() - timedelta(seconds=seconds)


def _has_open_steps() -> ColumnElement[bool]:
    return exists().where(col(Step.job_id) == col(Job.id), col(Step.state).in_(("queued", "running")))
