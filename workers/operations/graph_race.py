"""Races equivalent graphs against each other on the device. Light: no torch."""

import time

from infra.database.models import JsonObject
from profilers.measure import executed_operators
from profilers.measure import measure
from profilers.statistics import contains_one
from profilers.types import Artifact
from profilers.types import Effort
from workers.operations.inputs import JobInputs
from workers.operations.measure import stand
from workers.runner.operation import OperationContext

EFFORT = Effort(half_width=0.01, seconds=2.5, min_blocks=10, control_every=2, retreats=1)
"""+-1 %: settings that matter less may be chosen either way."""


def race_graphs(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "reference", "artifacts", "max_seconds", "count"?} -> {"ratios": {name: estimate}, "seconds"}``.

    Graphs whose race was disturbed, so that even the reference differs from itself, are left out of ``ratios``. With
    ``count`` the answer has ``operators`` as well: what this runtime executes of each graph and of the ``reference``,
    empty where it cannot tell.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    artifacts = {name: Artifact.model_validate(item) for name, item in arguments["artifacts"].items()}
    context.progress({"doing": "racing graphs of the dense model", "of": len(artifacts)})
    session = stand(inputs, context).session
    started = time.monotonic()
    effort = EFFORT.model_copy(update={"total_seconds": arguments["max_seconds"]})
    reference = session.load(Artifact.model_validate(arguments["reference"]))
    handles = {}
    try:
        for name, artifact in artifacts.items():
            handles[name] = session.load(artifact)
        measured = measure(session, reference, handles, effort, inputs.seed)
        told = {"reference": reference, **handles} if arguments.get("count") else {}
        operators = {name: executed_operators(handle) for name, handle in told.items()}
    finally:
        for handle in [reference, *handles.values()]:
            session.unload(handle)
    ratios = {
        name: candidate.measurement.ratio.model_dump(mode="json")
        for name, candidate in measured.items()
        if contains_one(candidate.measurement.control_ratio)
    }
    found: JsonObject = {"ratios": ratios, "seconds": round(time.monotonic() - started, 3)}
    return found | {"operators": operators} if operators else found
