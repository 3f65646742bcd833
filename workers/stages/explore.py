"""Beside the first trials: which combinations of options keep the outputs, scored in torch without building them."""

from sqlmodel import Session

from infra.database.clock import database_now
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.events import append_event
from infra.steps import create_step
from search import coordinator
from search.lifecycle import ENDED
from search.plan import current_budget
from search.records import job_records
from workers.stage import StageContext
from workers.stages.device_results import affordable_seconds
from workers.stages.inputs import get_job
from workers.stages.inputs import prepared_inputs

DIVERGENCES = (0.01, 0.02, 0.035, 0.06, 0.1, 0.15)
"""Targets: the latencies at which the solver's own answers diverge so much from the dense model."""
BUDGET_SHARE = 0.12
"""Part of the job's time that is spent on this."""
SEARCH_SHARE = 0.5
"""At most this part of what is left until the final measurements: the first trials need the processor as well."""
MOST_SECONDS = 120.0
LEAST_SECONDS = 3.0
"""Less is not worth the start."""


class ExploreStage:
    """Hands the guided strategy combinations that were scored end to end. The job can do without."""

    kind = "explore"

    def work(self, context: StageContext) -> JsonObject:
        """Return recipes with their predicted latency ratios and divergences."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            job = get_job(session, context.step.job_id)
            prepared, request = job.prepared or {}, job.request
            records = job_records(session, job.id, labelled=prepared["labelled"])
        measured = [
            {"recipe": record.recipe.model_dump(mode="json"), "ratio": record.ratio}
            for record in records
            if record.recipe is not None and record.ratio is not None and record.outcome == "done"
        ]
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "request": request,
            "prepared": prepared,
            "observations": measured,
            **context.step.payload,
        }
        return context.runner("compute").call("explore", arguments)

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep the recipes for the strategy's next turn."""
        job = get_job(session, step.job_id)
        if job.state in ENDED:
            return
        known = (job.prepared or {}).get("explored", [])
        job.prepared = (job.prepared or {}) | {"explored": known + output["explored"]}
        session.add(job)
        coordinator.request_tick(session, job)

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Tell the job's watchers; the search goes on without."""
        append_event(session, step.job_id, "notice", {"step": step.kind, **error.to_dict()})


def start_guided(session: Session, job: Job) -> None:
    """Enter the search stage and explore beside it, if there is the time."""
    coordinator.start_search(session, job)
    seconds = _seconds(session, job)
    if seconds < LEAST_SECONDS:
        return
    payload = {"divergences": list(DIVERGENCES), "max_seconds": seconds}
    create_step(session, job_id=job.id, kind="explore", key="explore", queue="compute", payload=payload)


def _seconds(session: Session, job: Job) -> float:
    budget = current_budget(session, job, database_now(session))
    most = affordable_seconds(job, BUDGET_SHARE, MOST_SECONDS)
    return min(most, SEARCH_SHARE * (budget.remaining - budget.reserve))
