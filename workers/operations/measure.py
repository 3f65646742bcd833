"""Latency of one candidate, raced against the resident reference."""

from dataclasses import dataclass
from pathlib import Path

from infra.database.models import JsonObject
from profilers.measure import measure as race
from profilers.protocol import Handle
from profilers.protocol import Session
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import Effort
from workers.operations.data import load_timing_feeds
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext


@dataclass
class Stand:
    """The open device with the dense reference loaded; stays as long as the runner does."""

    session: Session
    reference: Handle


def stand(inputs: JobInputs, context: OperationContext) -> Stand:
    """Return the runner's stand; the device is opened at the first call."""
    found = context.state.get("stand")
    if not isinstance(found, Stand):
        feeds = load_timing_feeds(inputs)
        session = get_profiler(inputs.device.profiler).open(inputs.device, inputs.workload, feeds=feeds)
        found = Stand(session, session.load(Artifact(path=inputs.reference_file)))
        context.state["stand"] = found
    return found


def measure(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "artifact", "give_up_above", "max_seconds"} -> {"measurement", "samples": path}``."""
    inputs = JobInputs.model_validate(arguments["inputs"])
    artifact = Artifact.model_validate(arguments["artifact"])
    open_stand = stand(inputs, context)
    handle = open_stand.session.load(artifact)
    try:
        effort = Effort.search(arguments["give_up_above"]).model_copy(update={"seconds": arguments["max_seconds"]})
        result = race(open_stand.session, open_stand.reference, {"candidate": handle}, effort, inputs.seed)["candidate"]
    finally:
        open_stand.session.unload(handle)
    path = samples_path(inputs, artifact)
    path.write_bytes(result.samples.to_npz())
    return {"measurement": result.measurement.model_dump(mode="json"), "samples": str(path)}


def samples_path(inputs: JobInputs, artifact: Artifact) -> Path:
    """Return where the raw samples of the next measurement of an artifact are written."""
    directory = inputs.work / "samples"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{artifact.path.stem}.npz"
