"""The best model of a job in a few numbers, computed once for each state of the job."""

from functools import lru_cache

from sqlmodel import Session
from sqlmodel import select

from api.jobs.schemas import BestSoFar
from infra.database.models import Job
from infra.database.models import Trial
from search import service as search

_REMEMBERED = 1024


class BestCache:
    """Remembers the answer until the job has a new event: many clients poll, few things happen."""

    def __init__(self) -> None:
        self._answers = lru_cache(maxsize=_REMEMBERED)(_Answer)

    def get(self, session: Session, job: Job, last_event: int | None) -> BestSoFar | None:
        """Return the best model so far; ``None`` while nothing is measured.

        Args:
            session: Where to read.
            job: The job.
            last_event: Id of its newest event.
        """
        answer = self._answers(job.id, job.version, job.state, last_event)
        if not answer.known:
            answer.best, answer.known = _compute(session, job), True
        return answer.best


class _Answer:
    """A place for one answer."""

    def __init__(self, *_key: object) -> None:
        self.known = False
        self.best: BestSoFar | None = None


def _compute(session: Session, job: Job) -> BestSoFar | None:
    measured = select(Trial.id).where(Trial.job_id == job.id, Trial.state == "complete").limit(1)
    if session.exec(measured).first() is None:
        return None
    front = search.front(session, job)
    best = front.best
    if best is None:
        return None
    latency, quality = best.latency, best.quality
    return BestSoFar(
        trial=best.number,
        name=best.name,
        verdict=front.verdict,
        message=front.message,
        confirmed=best.confirmed,
        speedup=latency.speedup.value if latency else None,
        speedup_vs_int8=latency.speedup_vs_int8.value if latency and latency.speedup_vs_int8 else None,
        latency_ms=latency.latency_ms if latency else None,
        drop=quality.drop.value if quality else None,
        fidelity=quality.fidelity if quality else None,
        size_bytes=best.size_bytes,
    )
