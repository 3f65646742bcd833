"""What runners do in the chaos tests: the arguments and results of the real operations, at a fraction of their cost.

Quality, latency and size follow from the candidate's digest, so that a step that runs twice finds the same. One
candidate in sixteen is poison: it crashes every runner that builds it.
"""

import hashlib
import json
import os
import random
import signal
import time
from pathlib import Path

from infra.json_types import JsonObject
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext

OPERATIONS = {
    name: f"{__name__}:{name}"
    for name in (
        "inspect",
        "prepare",
        "graph_variants",
        "race_graphs",
        "evaluate",
        "find_artifact",
        "build",
        "measure",
        "confirm",
    )
}
LAYERS = 3
_LONGEST_SECONDS = 0.4


def inspect(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Describe a small encoder."""
    _work()
    anatomy = {
        "model_type": "bert",
        "task": "sequence-classification",
        "layers": LAYERS,
        "hidden_size": 16,
        "heads": [4] * LAYERS,
        "head_size": 4,
        "intermediate_size": [128] * LAYERS,
        "vocabulary_size": 100,
        "max_sequence_length": 64,
        "labels": ["no", "yes"],
        "parameters": 10_000,
        "has_token_types": True,
    }
    return {"anatomy": anatomy, "capabilities": {"profiler": "onnxruntime", "available": True}, "labelled": True}


def prepare(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Write what later steps fetch from the store."""
    inputs = JobInputs.model_validate(arguments)
    for path in (inputs.calibration_file, inputs.dense_outputs_file, inputs.reference_file, inputs.timing_feeds_file):
        _write(path, f"{path.name} of {inputs.work.name}\n" * 1000)
    _work()
    return {"dense_size_bytes": 1000}


def graph_variants(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Name a file for each graph."""
    _work()
    return {"artifacts": {name: {"path": f"{name}.onnx"} for name in arguments["graphs"]}}


def race_graphs(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Find one graph faster than the others."""
    _work()
    slower, faster = {"value": 1.1, "low": 1.09, "high": 1.11}, {"value": 0.9, "low": 0.89, "high": 0.91}
    ratios = {name: faster if name == "packed qkv" else slower for name in arguments["artifacts"]}
    return {"ratios": ratios, "seconds": 0.1}


def evaluate(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Return quality and size of a candidate."""
    if is_poison(arguments["candidate"]):
        os.kill(os.getpid(), signal.SIGSEGV)
    context.progress({"doing": "evaluating"})
    build(arguments, context)
    size = 1000 if _dense(arguments["candidate"]) else 100 + round(900 * _number(arguments["candidate"], "size"))
    return {"quality": _quality(arguments["candidate"], "search"), "size_bytes": size, "facts": {}}


def find_artifact(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Return the artifact if this host has it."""
    path = _artifact(arguments)
    return {"artifact": {"path": str(path)} if path.exists() else None}


def build(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Write the artifact."""
    path = _artifact(arguments)
    _work()
    _write(path, json.dumps(arguments["candidate"]))
    return {"artifact": {"path": str(path)}}


def measure(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Return the latency of an artifact, and samples."""
    return _measured(Path(arguments["artifact"]["path"]), "search")


def confirm(arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Return the final numbers of all finalists."""
    results = {}
    for name, artifact in arguments["finalists"].items():
        path = Path(artifact["path"])
        candidate = json.loads(path.read_text(encoding="utf-8"))
        results[name] = _measured(path, "final") | {"holdout": _quality(candidate, "holdout")}
    return {"results": results}


def is_poison(candidate: JsonObject) -> bool:
    """Whether this candidate crashes its runner."""
    return candidate["kind"] == "recipe" and _digest(candidate)[0] == "0"


def _measured(path: Path, when: str) -> JsonObject:
    candidate = json.loads(path.read_text(encoding="utf-8"))
    ratio = 1.0 if _dense(candidate) else 0.1 + 0.8 * _number(candidate, "ratio")
    samples = path.with_suffix(f".{when}.npz")
    _write(samples, f"{when} {path.name}\n" * 1000)
    _work()
    measurement = {
        "status": "ok",
        "ratio": _around(ratio, 0.01),
        "latency_ms": 20 * ratio,
        "reference_ms": 20.0,
        "p90_ratio": ratio,
        "control_ratio": _around(1.0, 0.01),
        "blocks": 20,
        "dropped_blocks": 0,
        "seconds": 1.0,
    }
    return {"measurement": measurement, "samples": str(samples)}


def _quality(candidate: JsonObject, split: str) -> JsonObject:
    drop = 0.0 if _dense(candidate) else 0.3 * _number(candidate, "drop") + 0.01 * _number(candidate, split)
    return {
        "metric": "accuracy",
        "value": _around(0.9 - drop, 0.002),
        "dense": 0.9,
        "drop": _around(drop, 0.002),
        "divergence": 2 * drop,
        "fidelity": 1 - drop,
        "examples": 400,
        "split": split,
        "padded": split == "holdout",
    }


def _around(value: float, margin: float) -> JsonObject:
    return {"value": value, "low": value - margin, "high": value + margin}


def _dense(candidate: JsonObject) -> bool:
    return candidate.get("name") == "fp32"


def _digest(candidate: JsonObject) -> str:
    return hashlib.sha256(json.dumps(candidate, sort_keys=True).encode()).hexdigest()


def _number(candidate: JsonObject, salt: str) -> float:
    """A number between 0 and 1 that belongs to the candidate."""
    return random.Random(_digest(candidate) + salt).random()


def _artifact(arguments: JsonObject) -> Path:
    return JobInputs.model_validate(arguments["inputs"]).artifacts / f"{_digest(arguments['candidate'])}.onnx"


def _write(path: Path, text: str) -> None:
    """Write a file that is there completely or not at all, as the real operations do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def _work() -> None:
    time.sleep(random.uniform(0.0, _LONGEST_SECONDS))
