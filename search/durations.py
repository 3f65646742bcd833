"""How long the steps of a job took, for the plan of its budget."""

from collections import OrderedDict

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Step

_KEPT = 100_000
_ROWS_AT_ONCE = 200
_done: OrderedDict[str, tuple[str, float]] = OrderedDict()
"""``{step id: (kind, seconds)}``: what is done does not change, so a process reads each step once."""


def step_seconds(session: Session, job_id: str, kinds: tuple[str, ...]) -> dict[str, list[float]]:
    """Return the durations of a job's finished steps by kind.

    Args:
        session: Any session.
        job_id: The job.
        kinds: Kinds of steps to look at.
    """
    finished = select(Step).where(Step.job_id == job_id, Step.state == "done", col(Step.kind).in_(kinds))
    known = list(session.scalars(finished.with_only_columns(col(Step.id))))
    missing = [step_id for step_id in known if step_id not in _done]
    if missing:
        rows = finished.with_only_columns(col(Step.id), col(Step.kind), col(Step.started_at), col(Step.finished_at))
        if len(missing) < _ROWS_AT_ONCE:  # databases limit the number of parameters of a statement
            rows = rows.where(col(Step.id).in_(missing))
        for step_id, kind, started, ended in session.execute(rows):
            if started and ended:
                _done[step_id] = (kind, (ended - started).total_seconds())
    durations: dict[str, list[float]] = {}
    for step_id in known:
        if step_id in _done:
            kind, seconds = _done[step_id]
            durations.setdefault(kind, []).append(seconds)
    while len(_done) > _KEPT:
        _done.popitem(last=False)
    return durations
