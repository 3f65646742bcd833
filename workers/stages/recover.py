"""Recovery training of one shape."""

from pathlib import Path

from sqlmodel import Session

from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from search import coordinator
from search.requests import JobRequest
from workers.stage import StageContext
from workers.stages.inputs import TEACHER
from workers.stages.inputs import fetch_teacher
from workers.stages.inputs import fetch_weights
from workers.stages.inputs import get_job
from workers.stages.inputs import prepared_inputs

SLOWEST = 4.0
"""A training that takes this many times its budget, and the time to run the dense model, hangs."""
DENSE_SECONDS = 1800.0


class RecoverStage:
    """Trains one shape; an interrupted training goes on from its checkpoint, if this host has it.

    Payload: ``recipe`` (with ``weights`` to train on from them), ``seconds``, and maybe ``parent`` (a recipe with
    weights that this one is cut from) and ``finish`` (the training knows about int8).
    """

    kind = "recover"

    def work(self, context: StageContext) -> JsonObject:
        """Return the digest of the trained weights, the learning curve, and what else the operation says."""
        inputs, payload = prepared_inputs(context), context.step.payload
        with context.read_session() as session:
            request = JobRequest.model_validate(get_job(session, context.step.job_id).request).training
        assert request is not None
        parent = payload.get("parent")
        for recipe in (payload["recipe"], parent):
            if recipe is not None:
                fetch_weights(context, inputs, {"kind": "recipe", "recipe": recipe})
        fetch_teacher(context, inputs)
        arguments = {
            "inputs": inputs.model_dump(mode="json"),
            "recipe": payload["recipe"],
            "parent": parent,
            "finish": payload.get("finish", False),
            "name": context.step.key.replace(":", "-"),
            "seconds": payload["seconds"],
            "request": request.model_dump(mode="json"),
        }
        timeout = SLOWEST * payload["seconds"] + DENSE_SECONDS
        found = context.runner("compute").call("recover", arguments, timeout=timeout)
        teacher = found["teacher"]
        return found | {
            "weights": context.put_file(Path(found["weights"])).sha256,
            "teacher": None if teacher is None else context.put_file(Path(teacher)).sha256,
        }

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Keep the blobs; the coordinator creates trials with the weights."""
        weights: str = output["weights"]
        session.merge(JobBlob(job_id=step.job_id, name=f"weights.{weights}", sha256=weights))
        if output["teacher"] is not None:
            session.merge(JobBlob(job_id=step.job_id, name=TEACHER, sha256=output["teacher"]))
        coordinator.after_recover(session, get_job(session, step.job_id), step, output)

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Go on with the other shapes."""
        coordinator.recover_failed(session, get_job(session, step.job_id), step, error)
