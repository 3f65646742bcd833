"""When a step fails for good."""

import logging

from sqlmodel import Session

from infra.clock import utcnow
from infra.database.models import Job
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.events import append_event
from infra.steps import cancel_steps
from workers.stage import Stage

logger = logging.getLogger(__name__)


def fail_for_good(session: Session, stage: Stage | None, step: Step, error: ParetuneError) -> None:
    """Let the stage fail the trial or the job; if it cannot, fail the job, so that it does not hang.

    Works in the transaction that marked the step failed.
    """
    if stage is not None:
        try:
            with session.begin_nested():
                stage.failed(session, step, error)
        except Exception:
            logger.exception("the stage %s cannot handle its failure", step.kind)
        else:
            return
    _fail_job(session, step.job_id, error)


def _fail_job(session: Session, job_id: str, error: ParetuneError) -> None:
    job = session.get_one(Job, job_id)
    if job.state not in ("queued", "running"):
        return
    job.state = "failed"
    job.error = error.to_dict()
    job.finished_at = utcnow()
    job.version += 1
    cancel_steps(session, job_id)
    append_event(session, job_id, "error", job.error)
    append_event(session, job_id, "state", {"state": "failed"})
