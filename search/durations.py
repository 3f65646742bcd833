"""How long the steps of a job took, for the plan of its budget."""

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Step
from infra.database.models import Trial

NEWEST = 100
"""Steps of each kind that count: what they take drifts with the sizes of the candidates, and with the machine."""


def step_seconds(session: Session, job_id: str, kinds: tuple[str, ...]) -> dict[str, list[float]]:
    """Return the durations of a job's newest finished steps by kind.

    Args:
        session: Any session.
        job_id: The job.
        kinds: Kinds of steps to look at.
    """
    durations: dict[str, list[float]] = {}
    for kind in kinds:
        rows = (
            select(Step.started_at, Step.finished_at)
            .where(Step.job_id == job_id, Step.kind == kind, Step.state == "done")
            .order_by(col(Step.id).desc())
            .limit(NEWEST)
        )
        if kind == "evaluate":  # what was only built, because it is too large, says nothing about evaluations
            rows = rows.join(Trial, col(Step.trial_id) == col(Trial.id)).where(col(Trial.quality).is_not(None))
        seconds = [(ended - started).total_seconds() for started, ended in session.exec(rows) if started and ended]
        if seconds:
            durations[kind] = seconds
    return durations
