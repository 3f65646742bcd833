"""Whether written files compute what their networks compute, and are no slower than torch's own export."""

from pathlib import Path

from sqlmodel import Session

from compressors.export.histograms import differences
from infra.database.models import JsonObject
from infra.database.models import Step
from infra.errors import ParetuneError
from infra.events import append_event
from profilers.statistics import contains_one
from profilers.types import Estimate
from search import coordinator
from workers.stage import StageContext
from workers.stages.inputs import fetch_weights
from workers.stages.inputs import get_job
from workers.stages.inputs import get_trial
from workers.stages.inputs import prepared_inputs

RACE_SECONDS = 5.0


class AuditStage:
    """Traces one model with torch and compares; the result is a fact of the trial.

    Both float32 files, ours and torch's, are also raced on the job's device, in the recipe's own floating-point
    arithmetic: same weights, same arithmetic, so what differs is the graph.
    """

    kind = "audit"

    def work(self, context: StageContext) -> JsonObject:
        """Return what the comparison found."""
        inputs = prepared_inputs(context)
        with context.read_session() as session:
            candidate = get_trial(session, context.step.trial_id).candidate
        fetch_weights(context, inputs, candidate)
        arguments = {"inputs": inputs.model_dump(mode="json"), "recipe": candidate["recipe"]}
        found = context.runner("compute").call("audit", arguments)
        written, traced = found.pop("written", None), found.pop("traced", None)
        if written is not None:
            arguments = {
                "inputs": inputs.model_dump(mode="json"),
                "reference": traced,
                "artifacts": {"written": written},
                "max_seconds": RACE_SECONDS,
                "count": inputs.device.profiler != found["runtime"],
            }
            raced = context.runner("device").call("race_graphs", arguments)
            found |= {"latency": latency(raced["ratios"].get("written")), "precision": written["precision"]}
            found |= histograms(found, raced.get("operators") or {}, inputs.device.profiler)
            Path(written["path"]).unlink(missing_ok=True)
            Path(traced["path"]).unlink(missing_ok=True)
        return {"audit": found}

    def finish(self, session: Session, step: Step, output: JsonObject) -> None:
        """Write it down; a model that failed is in no front any more."""
        trial = get_trial(session, step.trial_id)
        trial.facts = trial.facts | output
        session.add(trial)
        coordinator.after_audit(session, get_job(session, step.job_id))

    def failed(self, session: Session, step: Step, error: ParetuneError) -> None:
        """Tell the job's watchers; a comparison that could not be made says nothing about the model."""
        append_event(session, step.job_id, "notice", {"step": step.kind, **error.to_dict()})
        coordinator.after_audit(session, get_job(session, step.job_id))


def histograms(found: JsonObject, counted: JsonObject, profiler: str) -> JsonObject:
    """Return what a runtime executes of the written and of the traced graph, and where they differ.

    Args:
        found: What was counted in ONNX Runtime: ``runtime`` and ``operators``.
        counted: What the job's own runtime has counted, if that is another: ``written`` and ``reference``.
        profiler: The job's runtime.
    """
    runtime, operators = found["runtime"], found["operators"]
    if counted.get("written") and counted.get("reference"):
        runtime, operators = profiler, {"written": counted["written"], "traced": counted["reference"]}
    differing = differences(operators["written"], operators["traced"])
    return {"runtime": runtime, "operators": operators, "differences": differing}


def latency(ratio: JsonObject | None) -> JsonObject:
    """Judge the time of the written graph relative to torch's export of the same network in the same arithmetic.

    Args:
        ratio: The measured estimate, or ``None`` if the device was too busy for one.
    """
    if ratio is None:
        return {"verdict": "noisy", "ratio": None}
    estimate = Estimate.model_validate(ratio)
    if contains_one(estimate):
        return {"verdict": "equal", "ratio": ratio}
    return {"verdict": "faster" if estimate.value < 1 else "slower", "ratio": ratio}
