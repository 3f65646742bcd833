"""Creates trials, each with the step that evaluates it, in the caller's transaction."""

from collections.abc import Collection
from collections.abc import Sequence

from sqlmodel import Session

from compressors.recipe import BaselineCandidate
from compressors.recipe import RecipeCandidate
from compressors.recipe import candidate_digest
from infra.database.models import Job
from infra.database.models import Trial
from infra.events import append_event
from infra.steps import create_step
from search.lifecycle import trial_event
from search.plan import PlannedTrial


def create_baselines(session: Session, job: Job, names: Sequence[str], known: Collection[str]) -> list[Trial]:
    """Create the baselines that the job does not have yet.

    Args:
        session: A write session.
        job: The job.
        names: Names of the baselines that make sense on the device.
        known: Digests of the job's trials; their number is the next trial's number.
    """
    created: list[Trial] = []
    for name in names:
        candidate = BaselineCandidate.model_validate({"name": name})
        if candidate_digest(candidate) not in known:
            trial = _create(session, job, len(known) + len(created), candidate, source="baseline", name=name)
            created.append(trial)
    return created


def create_planned(
    session: Session, job: Job, planned: Sequence[PlannedTrial], known: Collection[str], limit: int
) -> list[Trial]:
    """Create at most ``limit`` of the planned trials, leaving out what the job has already."""
    created: list[Trial] = []
    for plan in planned:
        candidate = RecipeCandidate(recipe=plan.recipe)
        taken = {*known, *(trial.digest for trial in created)}
        if len(created) >= limit or candidate_digest(candidate) in taken:
            continue
        trial = _create(session, job, len(known) + len(created), candidate, source=plan.source, name=plan.name)
        trial.params, trial.sampler_state = plan.params, plan.sampler_state
        created.append(trial)
    return created


def _create(
    session: Session,
    job: Job,
    number: int,
    candidate: RecipeCandidate | BaselineCandidate,
    *,
    source: str,
    name: str | None,
) -> Trial:
    digest = candidate_digest(candidate)
    trial = Trial(
        job_id=job.id,
        number=number,
        source=source,
        candidate=candidate.model_dump(mode="json"),
        digest=digest,
        facts={"name": name} if name else {},
    )
    session.add(trial)
    session.flush()
    key = f"evaluate:{digest}"
    create_step(session, job_id=job.id, trial_id=trial.id, kind="evaluate", key=key, queue="compute")
    append_event(session, job.id, "trial", trial_event(trial))
    return trial
