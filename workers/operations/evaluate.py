"""Build a candidate and look at its quality on the search split: on a first part, and unless it is hopeless on all."""

import time

import numpy as np
from numpy.typing import NDArray

from compressors.recipe import RecipeCandidate
from infra.database.models import JsonObject
from profilers.protocol import Handle
from profilers.quality.evaluate import compare
from profilers.quality.first_part import FirstPart
from profilers.quality.first_part import run_first
from profilers.quality.first_part import run_rest
from profilers.registry import get_profiler
from profilers.types import Quality
from search.first_look import Patience
from search.first_look import hopeless
from workers.operations.artifacts import parse_candidate
from workers.operations.artifacts import size_bytes
from workers.operations.bench import Bench
from workers.operations.bench import bench
from workers.operations.build import build_artifact
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext


def evaluate(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "candidate", "allowed_at_first"} -> {"quality", "size_bytes", "facts"}``.

    The deployed artifact is evaluated on the device's own runtime, one example at a time at its own length; the
    finalists are evaluated again, padded to the workload's shape. A candidate that is hopeless on the first part of the
    texts (:func:`search.first_look.hopeless`) is evaluated no further: ``facts["first_part"]["stopped"]`` says why, and
    ``quality`` is that of the first part. One whose file is larger than the goal allows is not evaluated: ``quality``
    is ``None``. Without ``allowed_at_first`` every candidate is evaluated to the end.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    candidate = parse_candidate(arguments["candidate"])
    given = arguments.get("allowed_at_first")
    allowed = None if given is None else Patience.model_validate(given)
    work = bench(inputs, context)
    artifact, build_seconds = build_artifact(inputs, candidate, context)
    size = size_bytes(artifact)
    facts: JsonObject = {"build_seconds": build_seconds}
    if isinstance(candidate, RecipeCandidate):
        facts |= work.facts(candidate.recipe)
    if allowed is not None and not allowed.fits(size):
        return {"quality": None, "size_bytes": size, "facts": facts}
    started = time.monotonic()
    profiler = get_profiler(inputs.device.profiler)
    with profiler.open(inputs.device, inputs.evaluation_workload, pinned=False) as session:
        handle = session.load(artifact, static=False)
        quality, first = judge(handle, work, allowed)
    facts["evaluate_seconds"] = time.monotonic() - started
    if first is not None:
        facts["first_part"] = first
    return {"quality": quality.model_dump(mode="json"), "size_bytes": size, "facts": facts}


def judge(handle: Handle, work: Bench, allowed: Patience | None) -> tuple[Quality, JsonObject | None]:
    """Evaluate a loaded artifact, in two parts where the search split is large enough.

    Returns:
        The quality on the whole split, or on its first part if that shows that the model is hopeless; and what the
        first part said, with why evaluation stopped there.
    """
    inputs, texts, reference = work.inputs, work.data.texts["search"], work.first_reference
    first = run_first(handle, texts, reference, inputs.task, inputs.workload, inputs.seed) if reference else None
    stop = hopeless(first.look, allowed) if first and allowed else None
    if first and stop:
        quality = _quality(work, first.outputs, first.positions)
        return quality, _facts(first) | {"stopped": {"reason": stop.reason, "at_least": stop.at_least}}
    outputs = run_rest(handle, texts, inputs.task, inputs.workload, first)
    return _quality(work, outputs, np.arange(len(texts))), _facts(first) if first else None


def _quality(work: Bench, outputs: NDArray[np.float32], positions: NDArray[np.int64]) -> Quality:
    """Return the quality of outputs for some of the search split's texts."""
    dense, labels = work.dense_outputs["search"][positions], work.data.labels["search"]
    known = None if labels is None else labels[positions]
    quality, _ = compare(outputs, dense, known, work.inputs.task, split="search", padded=False, seed=work.inputs.seed)
    return quality


def _facts(first: FirstPart) -> JsonObject:
    return first.look.model_dump(mode="json") | {"stopped": None}
