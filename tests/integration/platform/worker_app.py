"""The workers' Celery application with one more kind of step, whose work the tests can see and hold up."""

import os
import time
from pathlib import Path

from sqlmodel import Session

from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.events import append_event
from infra.steps import create_step
from workers.app import app as app
from workers.stage import Stage
from workers.stage import StageContext
from workers.stages import STAGES


class ProbeStage:
    """Notes its process id in a file, holds on as long as another file says so, and continues a chain of steps."""

    kind = "probe"

    def work(self, context: StageContext) -> JsonObject:
        payload = context.step.payload
        if "log" in payload:
            with Path(payload["log"]).open("a") as log:
                log.write(f"{os.getpid()}\n")
        while "hold" in payload and Path(payload["hold"]).exists():
            context.check_cancelled()
            time.sleep(0.02)
        return {"pid": os.getpid()}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        append_event(session, step.job_id, "notice", {"finished": step.key})
        if left := step.payload.get("chain", 0):
            payload = {"chain": left - 1}
            create_step(
                session, job_id=step.job_id, kind="probe", key=f"chain:{left}", queue=step.queue, payload=payload
            )

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        append_event(session, step.job_id, "error", error.to_dict())


_PROBE: Stage = ProbeStage()
STAGES[_PROBE.kind] = _PROBE
