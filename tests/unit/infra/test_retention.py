"""Retention: what is older than the settings allow goes, and nothing else."""

from datetime import timedelta

from sqlmodel import Session
from sqlmodel import select

from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import AuditEntry
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import Upload
from infra.retention import apply_retention
from infra.settings import load_settings
from infra.steps import create_step
from tests.helpers.rows import add_job

HOUR = 3600.0


def ended_job(session: Session, hours: float) -> str:
    job = add_job(session, state="succeeded")
    job.finished_at = utcnow() - timedelta(hours=hours)
    session.add_all(Event(job_id=job.id, kind=kind) for kind in ("state", "progress", "notice", "error"))
    return job.id


def kinds(database: Database, job_id: str) -> list[str]:
    with database.read_session() as session:
        return sorted(session.exec(select(Event.kind).where(Event.job_id == job_id)))


def test_jobs_go_with_all_their_rows_when_they_ended_long_ago(database: Database) -> None:
    with database.write_session() as session:
        old, young = ended_job(session, 3), ended_job(session, 1)
        running = add_job(session).id
        exporting = ended_job(session, 3)
        create_step(session, job_id=exporting, kind="export", key="export", queue="compute")
    removed = apply_retention(database, load_settings(retain_jobs_seconds=2 * HOUR))
    with database.read_session() as session:
        assert set(session.exec(select(Job.id))) == {young, running, exporting}
    assert removed["jobs"] == 1
    assert kinds(database, old) == []
    assert len(kinds(database, young)) == 4


def test_events_that_only_mattered_meanwhile_go_before_their_jobs(database: Database) -> None:
    with database.write_session() as session:
        old, young = ended_job(session, 3), ended_job(session, 1)
        running = add_job(session)
        session.add(Event(job_id=running.id, kind="progress", created_at=utcnow() - timedelta(days=9)))
        running_id = running.id
    assert apply_retention(database, load_settings(retain_events_seconds=2 * HOUR))["events"] == 2
    assert kinds(database, old) == ["error", "state"]
    assert kinds(database, young) == ["error", "notice", "progress", "state"]
    assert kinds(database, running_id) == ["progress"]


def test_uploads_and_audit_entries_have_their_own_times(database: Database) -> None:
    with database.write_session() as session:
        for hours in (1, 3):
            created_at = utcnow() - timedelta(hours=hours)
            session.add(Upload(owner="o", kind="dataset", name=f"u{hours}", length=1, created_at=created_at))
            session.add(AuditEntry(principal="p", action=f"a{hours}", target="t", created_at=created_at))
    settings = load_settings(retain_uploads_seconds=2 * HOUR, retain_audit_seconds=2 * HOUR)
    assert apply_retention(database, settings) == {"jobs": 0, "events": 0, "uploads": 1, "audit": 1, "shared": 0}
    with database.read_session() as session:
        assert session.exec(select(Upload.name)).all() == ["u1"]
        assert session.exec(select(AuditEntry.action)).all() == ["a1"]


def test_by_default_only_unfinished_uploads_go(database: Database) -> None:
    with database.write_session() as session:
        ended_job(session, 24 * 365)
        session.add(AuditEntry(principal="p", action="a", target="t", created_at=utcnow() - timedelta(days=999)))
        session.add(Upload(owner="o", kind="dataset", name="u", length=1, created_at=utcnow() - timedelta(days=2)))
    assert apply_retention(database, load_settings()) == {"jobs": 0, "events": 0, "uploads": 1, "audit": 0, "shared": 0}


def test_more_rows_than_one_transaction_takes(database: Database) -> None:
    with database.write_session() as session:
        session.add_all(
            Upload(owner="o", kind="dataset", name="u", length=1, created_at=utcnow() - timedelta(days=2))
            for _ in range(1001)
        )
    assert apply_retention(database, load_settings())["uploads"] == 1001
