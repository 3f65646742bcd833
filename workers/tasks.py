"""The only Celery task."""

from celery import Celery

from infra.queue import STEP_TASK
from infra.queue import StepQueue
from infra.settings import Settings
from infra.tracing import configure_tracing
from workers.executor import StepExecutor

_executor: StepExecutor | None = None
"""Of this pool process; made by its first task, because connections and threads do not survive a fork."""


def register(app: Celery, settings: Settings) -> None:
    """Add the task to an application."""

    @app.task(name=STEP_TASK, ignore_result=True)  # type: ignore[untyped-decorator]
    def do_step(step_id: str) -> None:
        _get_executor(app, settings).run(step_id)


def close_executor() -> None:
    """End the runners of this process."""
    global _executor
    if _executor is not None:
        _executor.close()
        _executor = None


def _get_executor(app: Celery, settings: Settings) -> StepExecutor:
    global _executor
    if _executor is None:
        from workers.stages import STAGES

        configure_tracing(settings, "worker")
        _executor = StepExecutor(settings, STAGES, StepQueue(settings, app))
    return _executor
