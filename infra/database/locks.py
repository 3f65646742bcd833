"""Row locks."""

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Job


def lock_job(session: Session, job_id: str) -> None:
    """Let only one transaction at a time change a job and what belongs to it; taken until the transaction ends.

    Take it before the rows of the job's steps and trials. Within it "was this the last one?" has one answer, and events
    get their numbers in the order in which they become visible. SQLite has one writer at a time anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(select(Job.id).where(col(Job.id) == job_id).with_for_update(key_share=True))
