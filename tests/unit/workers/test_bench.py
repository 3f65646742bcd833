"""What a compute runner builds from a recipe, on real files."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from compressors.calibration import calibrate
from compressors.export.defaults import default_graph
from compressors.export.onnx.context import Context
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.tensors import named_tensors
from profilers.types import DeviceProfile
from profilers.types import Workload
from search.requests import Columns
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model
from workers.operations.audit import audit
from workers.operations.bench import Bench
from workers.operations.graph_race import race_graphs
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs
from workers.operations.prepare import prepare
from workers.runner.operation import OperationContext
from workers.stages.audit import histograms
from workers.stages.audit import latency


def make_bench(folder: Path) -> Bench:
    model = make_tiny_model(folder / "model")
    dataset = DataFile(path=make_dataset(folder / "data.jsonl", rows=200), format="jsonl")
    inputs = JobInputs(
        work=folder,
        model=model,
        dataset=dataset,
        task="sequence-classification",
        columns=Columns(),
        workload=Workload(batch=1, sequence_length=32),
        device=DeviceProfile(name="local-cpu", profiler="onnxruntime"),
    )
    work = Bench(inputs)
    calibrate(work.network, work.calibration_batches()).save(inputs.calibration_file)
    return work


def on_device(folder: Path, profiler: str) -> Bench:
    """A prepared job on a device."""
    device = DeviceProfile(name="device", profiler=profiler)
    work = Bench(make_bench(folder).inputs.model_copy(update={"device": device}))
    prepare(work.inputs.model_dump(mode="json"), context(work))
    return work


def context(work: Bench) -> OperationContext:
    found = OperationContext("compute", work.inputs.work, lambda _: None)
    found.state["bench"] = work
    return found


def unfused(context: Context, source: str, kind: str, output: str) -> str:
    """A GELU in an order that no runtime recognises."""
    builder = context.builder
    half = builder.node("Mul", [source, builder.constant(np.float32(math.sqrt(0.5)))], f"{output}.scaled")
    shared = builder.node("Mul", [source, builder.node("Erf", [half], f"{output}.erf")], f"{output}.product")
    total = builder.node("Sum", [shared, source], f"{output}.total")
    return builder.node("Mul", [total, builder.constant(np.float32(0.5))], output)


def test_the_audit_compares_with_torch_and_counts_what_is_executed(tmp_path: Path) -> None:
    work = make_bench(tmp_path)
    layer = LayerRecipe(attention=AttentionRecipe(heads=2, bits=8), feed_forward=FeedForwardRecipe(bits=8))
    recipe = Recipe(layers=(layer,) * len(work.network.layers))
    arguments = {"inputs": work.inputs.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")}
    found = audit(arguments, OperationContext("compute", tmp_path, lambda _: None))
    assert found["ok"], found
    assert found["relative_error"] <= found["tolerance"]
    norms = {name: count for name, count in found["operators"]["traced"].items() if "LayerNormalization" in name}
    assert sum(norms.values()) >= 2 * len(work.network.layers)
    assert any("Quantize" in name for name in found["operators"]["deployed"])
    layers = len(work.network.layers)
    expected = {"norms": 2 * layers + 1, "attentions": layers, "activations": layers}
    assert found["fusions"] == dict.fromkeys(("expected", "written", "traced", "deployed"), expected)
    assert found["fusion_parity"]
    ids = np.ones((1, 32), np.int64)
    np.savez(work.inputs.timing_feeds_file, input_ids=ids, attention_mask=ids, token_type_ids=0 * ids)
    work.inputs.reference_file.hardlink_to(found["traced"]["path"])
    raced = race_graphs(
        {
            "inputs": arguments["inputs"],
            "reference": found["traced"],
            "artifacts": {"written": found["written"]},
            "max_seconds": 1.0,
        },
        OperationContext("device", tmp_path, lambda _: None),
    )
    assert raced["ratios"].keys() <= {"written"}, "a disturbed race gives no ratio"


def test_a_block_that_the_runtime_does_not_fuse_fails_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_bench(tmp_path)
    recipe = Recipe.dense(len(work.network.layers))
    monkeypatch.setattr("compressors.export.onnx.feed_forward.emit_activation", unfused)
    arguments = {"inputs": work.inputs.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")}
    found = audit(arguments, OperationContext("compute", tmp_path, lambda _: None))
    assert not found["ok"]
    assert found["relative_error"] <= found["tolerance"], "it computes the same, but slower"
    assert found["fusions"]["written"]["activations"] == 0
    assert "not fuse" in found["message"]


def test_onnx_runtime_does_not_judge_models_of_another_runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    work = make_bench(tmp_path)
    device = DeviceProfile(name="device", profiler="openvino")
    inputs = work.inputs.model_copy(update={"device": device})
    recipe = Recipe.dense(len(work.network.layers)).model_copy(
        update={"precision": "bf16", "graph": default_graph("openvino", {32})}
    )
    monkeypatch.setattr("compressors.export.onnx.feed_forward.emit_activation", unfused)
    arguments = {"inputs": inputs.model_dump(mode="json"), "recipe": recipe.model_dump(mode="json")}
    found = audit(arguments, OperationContext("compute", tmp_path, lambda _: None))
    assert found["ok"], "ONNX Runtime lacks a fused GELU, which says nothing about OpenVINO"
    assert "fusion_parity" not in found
    assert {found[form]["precision"] for form in ("written", "traced")} == {"bf16"}, "both in the recipe's own"
    in_float32 = {form: found[form] | {"precision": "f32"} for form in ("written", "traced")}
    ids = np.ones((1, 32), np.int64)
    np.savez(inputs.timing_feeds_file, input_ids=ids, attention_mask=ids, token_type_ids=0 * ids)
    inputs.reference_file.hardlink_to(found["traced"]["path"])
    race = {
        "inputs": arguments["inputs"],
        "reference": in_float32["traced"],
        "artifacts": {"written": in_float32["written"]},
        "max_seconds": 1.0,
        "count": True,
    }
    counted = race_graphs(race, OperationContext("device", tmp_path, lambda _: None))["operators"]
    told = histograms(found, counted, "openvino")
    assert told["runtime"] == "openvino"
    assert "FullyConnected" in told["operators"]["written"], "layers of OpenVINO, not operators of ONNX Runtime"
    assert told["differences"]
    kept = histograms(found, {"written": {}, "reference": {}}, "openvino")
    assert (kept["runtime"], kept["operators"]) == ("onnxruntime", found["operators"])


@pytest.mark.parametrize(("ratio", "verdict"), [(0.9, "faster"), (1.0, "equal"), (1.1, "slower"), (None, "noisy")])
def test_latency_of_the_written_graph_is_judged_by_its_interval(ratio: float | None, verdict: str) -> None:
    estimate = None if ratio is None else {"value": ratio, "low": ratio - 0.05, "high": ratio + 0.05}
    assert latency(estimate) == {"verdict": verdict, "ratio": estimate}


def test_a_repair_is_part_of_the_candidate_and_always_the_same(tmp_path: Path) -> None:
    work = make_bench(tmp_path)
    layer = LayerRecipe(attention=AttentionRecipe(heads=1), feed_forward=FeedForwardRecipe(intermediate_size=8))
    plain = Recipe(layers=(layer,) * len(work.network.layers))
    repaired = plain.model_copy(update={"repair": "sequential"})
    first, other = work.candidate_network(repaired), Bench(work.inputs).candidate_network(repaired)
    assert repaired.digest != plain.digest
    before, after = named_tensors(work.candidate_network(plain)), named_tensors(first)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert all(torch.equal(tensor, named_tensors(other)[name]) for name, tensor in after.items())
    assert work.facts(repaired)["parameters"] == work.facts(plain)["parameters"]
    assert work.facts(plain).keys() == {"parameters"}
    facts = json.loads(json.dumps(work.facts(repaired)))["repair"]  # as the database keeps it
    assert facts.keys() == {"kept", "before", "after"}
    assert facts["kept"] == (facts["after"] < facts["before"])


def test_a_candidate_tells_how_often_compensation_was_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = make_bench(tmp_path)
    layer = LayerRecipe(attention=AttentionRecipe(heads=1), feed_forward=FeedForwardRecipe(intermediate_size=8))
    monkeypatch.setattr("compressors.acceptance.is_no_worse", lambda *_: False)
    facts = work.facts(Recipe(layers=(layer,) * len(work.network.layers)))
    assert facts["uncompensated"] == 2 * len(work.network.layers)
