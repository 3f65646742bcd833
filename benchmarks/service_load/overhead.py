"""The share of a real job's wall time in which none of its steps compressed, evaluated or measured."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from sqlmodel import col
from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Job
from infra.database.models import Step


def overhead_rows(home: Path) -> list[dict[str, str]]:
    """Return one row for each job that succeeded in a home.

    A step's time runs from its claim to the commit of its result. What is left is the coordinator, messages, claims,
    and waiting. Work on other jobs at the same time counts as waiting: use a service that did one job at a time.
    """
    database = Database(f"sqlite:///{home / 'paretune.db'}")
    rows = []
    with database.read_session() as session:
        jobs = session.exec(select(Job).where(Job.state == "succeeded").order_by(col(Job.created_at))).all()
        for job in jobs:
            working = select(Step.started_at, Step.finished_at).where(
                Step.job_id == job.id, Step.state == "done", Step.queue != "search"
            )
            spans = [(start, end) for start, end in session.exec(working) if start and end]
            thinking = session.exec(
                select(Step.started_at, Step.finished_at).where(
                    Step.job_id == job.id, Step.state == "done", Step.queue == "search"
                )
            ).all()
            assert job.started_at is not None
            assert job.finished_at is not None
            wall = (job.finished_at - job.started_at).total_seconds()
            beside = wall - _covered(spans, job.started_at, job.finished_at)
            rows.append(
                {
                    "job": job.name or job.id,
                    "strategy": job.request["strategy"],
                    "wall": f"{wall:.0f} s",
                    "steps": f"{len(spans)}",
                    "coordinator": f"{sum((e - s).total_seconds() for s, e in thinking if s and e):.1f} s",
                    "not working": f"{beside:.1f} s",
                    "share": f"{beside / wall:.1%}",
                }
            )
    database.dispose()
    return rows


def _covered(spans: Iterable[tuple[datetime, datetime]], start: datetime, end: datetime) -> float:
    """Seconds between ``start`` and ``end`` that lie in at least one span."""
    covered, reached = 0.0, start
    for begin, finish in sorted(spans):
        begin, finish = max(begin, reached), min(finish, end)
        if finish > begin:
            covered += (finish - begin).total_seconds()
            reached = finish
    return covered
