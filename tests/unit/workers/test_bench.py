"""What a compute runner builds from a recipe, on real files."""

from pathlib import Path

import torch

from compressors.calibration import calibrate
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
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs
from workers.runner.operation import OperationContext


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
    assert work.parameters(repaired) == work.parameters(plain)
