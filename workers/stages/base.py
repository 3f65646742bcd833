"""What the stages share: what happens to the job or the trial when a step failed for good."""

from sqlmodel import Session

from infra.database.models import Step
from infra.errors import ParetuneError
from search import coordinator
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial


class JobStage:
    """A stage that the whole job depends on: its failure is the job's."""

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """End the job with the error."""
        coordinator.fail_job(session, get_job(session, step.job_id), error)


class TrialStage:
    """A stage of one trial: its failure costs that trial."""

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """End the trial with the error; the search goes on."""
        coordinator.trial_failed(session, get_job(session, step.job_id), get_trial(session, step.trial_id), error)
