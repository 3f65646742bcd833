"""What was measured once on a device for all jobs of the same kind: its name, and when it is measured anew."""

from typing import Literal

from sqlmodel import Session

from compressors.description import Anatomy
from infra.database.models import BestGraph
from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import LatencyTable
from infra.digests import json_digest
from search.requests import JobRequest

CLEARLY_MORE = 2.0
"""A result is measured anew by a job that can spend so many times the time on it: intervals become a third narrower."""
HOST_FACTS = ("fingerprint", "cpu_limit", "versions", "gpu")
"""What times depend on of all that is known about a device: processor, memory class, quota, runtimes, GPU."""


def measured_key(session: Session, job: Job, what: JsonObject) -> str:
    """Name what was measured for any model of the job's architecture on its device, as it is now, at its workload."""
    prepared = job.prepared or {}
    anatomy = Anatomy.model_validate(prepared["anatomy"]).model_dump(
        include={"model_type", "task", "layers", "hidden_size", "heads", "head_size", "intermediate_size"}, mode="json"
    )
    device = session.get_one(Device, job.device_id)
    parts = {
        "device": device.id,
        "options": device.options,
        "host": {name: device.facts.get(name) for name in HOST_FACTS},
        "anatomy": anatomy | {"labels": len(prepared["anatomy"]["labels"])},
        "capabilities": prepared["capabilities"],
        "workload": JobRequest.model_validate(job.request).workload.model_dump(mode="json"),
    }
    return json_digest(parts | what)


def worth_repeating(spent: float, affordable: float) -> bool:
    """Whether a result is measured anew.

    Args:
        spent: Seconds that its measurement was allowed to take.
        affordable: Seconds that it may take now.
    """
    return affordable >= CLEARLY_MORE * spent


def keep_longest(
    session: Session,
    known: BestGraph | LatencyTable | None,
    fresh: BestGraph | LatencyTable,
    field: Literal["found", "table"],
) -> None:
    """Keep a result for later jobs, in place of one that was measured in less time.

    Args:
        session: A write session.
        known: The row under the same key, if there is one.
        fresh: A new row of the same kind, with the result.
        field: Where such rows hold the result.
    """
    result: JsonObject = getattr(fresh, field)
    if known is None:
        session.add(fresh)
    elif result["seconds"] > getattr(known, field)["seconds"]:
        setattr(known, field, result)
        session.add(known)


def affordable_seconds(job: Job, share: float, most: float) -> float:
    """Return the seconds that a job may spend on a measurement: a share of its budget, and no more than ``most``."""
    budget = JobRequest.model_validate(job.request).search_seconds
    return most if budget is None else min(most, share * budget)
