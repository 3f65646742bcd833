"""Whether graphs may be compared: what the runtime has fused in the model and in the reference, in words."""

from collections.abc import Iterable
from collections.abc import Mapping

from infra.database.models import Trial
from profilers.types import Fusions
from profilers.types import Measurement

UNFUSED = "the runtime fuses only {what} of its graph, so no comparison with it is valid"
FLATTERED = (
    "The runtime fuses only {what} of the reference, the plain fp32 export: factors against fp32 are flattered. "
    "What enters the front is held against every baseline; factors against those are what counts."
)
FAILED_AUDIT = "its file failed the audit against torch's own export"


def exclusion(trial: Trial, measurement: Measurement) -> str | None:
    """Return why a measured model is in no front, whatever its numbers; ``None`` if it may be.

    A baseline is what the user would have had, fused or not.
    """
    audit = trial.facts.get("audit", {})
    if audit.get("ok") is False:  # its file computes something else than its network, or is not fused
        return f"{FAILED_AUDIT}: {audit['message']}" if audit.get("message") else FAILED_AUDIT
    return unfused(trial, measurement)


def unfused(trial: Trial, measurement: Measurement) -> str | None:
    """Return what the runtime fails to fuse in a model that is no baseline; ``None``: nothing, or it is not known."""
    counted = measurement.fusions
    if trial.source == "baseline" or counted is None or counted.complete:
        return None
    return UNFUSED.format(what=shortfall(counted.expected, counted.found))


def reference_note(trials: Iterable[Trial]) -> str | None:
    """Return what is to be said of a reference that the runtime does not fuse completely; ``None``: nothing."""
    for trial in trials:
        row = trial.final_measurement or trial.measurement
        if row is None or row.get("fusions") is None:
            continue
        counted = Fusions.model_validate(row["fusions"])
        if counted.reference_complete:
            return None  # all models of a job are measured against the same file
        return FLATTERED.format(what=shortfall(counted.reference_expected, counted.reference_found))
    return None


def shortfall(expected: Mapping[str, int], found: Mapping[str, int]) -> str:
    """Name the kinds of which another number is fused than there are, for example ``5 of 6 activations``."""
    return ", ".join(
        f"{found.get(kind, 0)} of {count} {kind}" for kind, count in expected.items() if found.get(kind, 0) != count
    )
