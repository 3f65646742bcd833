"""When a step fails for good."""

import logging

from sqlmodel import Session

from infra.database.models import Job
from infra.database.models import Step
from infra.errors import ParetuneError
from search.lifecycle import fail_job
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
    fail_job(session, session.get_one(Job, step.job_id), error)
