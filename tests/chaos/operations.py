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

from compressors.recipe import AttentionRecipe
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import Recipe
from infra.json_types import JsonObject
from search.options import Branch
from search.options import BranchTable
from search.options import Explored
from search.options import Option
from search.options import OptionDatabase
from search.options import Unit
from search.options import latency_key
from search.prepared import GraphDefaults
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext

OPERATIONS = {
    name: f"{__name__}:{name}"
    for name in (
        *("inspect", "prepare", "graph_variants", "race_graphs", "table_blocks", "table", "options", "explore"),
        *("evaluate", "find_artifact", "build", "measure", "recover", "audit", "confirm"),
    )
}
LAYERS, HEADS, WIDTH = 3, 4, 128
_LONGEST_SECONDS = 0.4


def inspect(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Describe a small encoder."""
    _work()
    anatomy = {
        "model_type": "bert",
        "task": "sequence-classification",
        "layers": LAYERS,
        "hidden_size": 16,
        "heads": [HEADS] * LAYERS,
        "head_size": 4,
        "intermediate_size": [WIDTH] * LAYERS,
        "vocabulary_size": 100,
        "max_sequence_length": 64,
        "labels": ["no", "yes"],
        "parameters": 10_000,
        "has_token_types": True,
    }
    capabilities = {"profiler": "onnxruntime", "available": True}
    defaults = GraphDefaults().model_dump(mode="json")
    return {"anatomy": anatomy, "capabilities": capabilities, "labelled": True, "graph_defaults": defaults}


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


def table_blocks(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """No blocks: :func:`table` knows the times."""
    _work()
    return {"blocks": []}


def table(_arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Return times in proportion to the width."""
    context.progress({"doing": "timing"})
    entries = {}
    for branch, width, _ in _branches():
        time_share = 0.25 * (width / HEADS if isinstance(branch, AttentionRecipe) else width / WIDTH) / LAYERS
        full = HEADS if isinstance(branch, AttentionRecipe) else WIDTH
        entries[latency_key(branch, full=full)] = time_share * (0.4 if branch.bits == 8 else 1.0)
    _work()
    found = BranchTable(fixed={"f32": 0.3}, entries=entries)
    return {"latency_table": found.model_dump(mode="json"), "table_seconds": 0.1}


def options(_arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Return options whose error grows with what is removed."""
    context.progress({"doing": "options"})
    found: dict[Branch, list[Option]] = {"attention": [], "feed_forward": []}
    for branch, width, kept in _branches():
        error = (1.0 - kept) ** 2 + (0.01 if branch.bits == 8 else 0.0)
        if isinstance(branch, AttentionRecipe):
            found["attention"].append(Option(attention=branch, error=error, size_bytes=width))
        else:
            found["feed_forward"].append(Option(feed_forward=branch, error=error, size_bytes=width))
    units = [
        Unit(layer=layer, branch=branch, options=tuple(choices))
        for layer in range(LAYERS)
        for branch, choices in found.items()
    ]
    _work()
    database = OptionDatabase(units=tuple(units), fixed_size_bytes=100)
    return {"options": database.model_dump(mode="json"), "options_seconds": 0.1}


def explore(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Return two combinations."""
    _work()
    dense = Recipe.dense(LAYERS)
    found = []
    for heads in (1, 2):
        layers = tuple(layer.model_copy(update={"attention": AttentionRecipe(heads=heads)}) for layer in dense.layers)
        recipe = dense.model_copy(update={"layers": layers})
        found.append(Explored(recipe=recipe, ratio=0.3 + heads / 10, divergence=0.1 / heads))
    return {"explored": [entry.model_dump(mode="json") for entry in found]}


def recover(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """Write weights that follow from the shape and the time; they are better than those before."""
    context.progress({"doing": "training"})
    inputs, recipe = JobInputs.model_validate(arguments["inputs"]), arguments["recipe"]
    for _ in range(3):
        _work()
    name = _digest({"recipe": recipe, "seconds": arguments["seconds"]})
    weights = inputs.work / "training" / arguments["name"] / "weights.safetensors"
    _write(weights, f"{name}\n" * 1000)
    _write(inputs.teacher_file, "teacher\n" * 1000)
    score = -0.2 * random.Random(name).random()
    return {
        "weights": str(weights),
        "teacher": str(inputs.teacher_file),
        "curve": [{"seconds": part * arguments["seconds"], "score": score / (1 + part)} for part in (0.0, 0.5, 1.0)],
        "start_score": score,
        "best_score": score / 2,
        "improved": True,
        "steps": 100,
        "seconds": arguments["seconds"],
        "texts": 100,
        "precision": "f32",
        "stopped": False,
    }


def audit(_arguments: JsonObject, _context: OperationContext) -> JsonObject:
    """Find nothing wrong."""
    _work()
    return {"ok": True, "relative_error": 1e-7, "tolerance": 1e-4, "operators": {}, "seconds": 0.1}


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


def _branches() -> list[tuple[BranchRecipe, int, float]]:
    """Everything that a branch may become: recipe, width, kept part."""
    found: list[tuple[BranchRecipe, int, float]] = []
    for bits in (32, 8):
        found += [(AttentionRecipe.model_validate({"heads": n, "bits": bits}), n, n / HEADS) for n in range(1, 5)]
        widths = range(WIDTH // 4, WIDTH + 1, WIDTH // 4)
        found += [
            (FeedForwardRecipe.model_validate({"intermediate_size": n, "bits": bits}), n, n / WIDTH) for n in widths
        ]
    return found


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
