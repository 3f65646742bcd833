"""Jobs on devices that open torch models and no ONNX files: a GPU's path, with the same code on the CPU."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from compressors.export.torch_baselines import DTYPES
from compressors.export.torch_baselines import build_torch_baseline
from compressors.recipe import AttentionRecipe
from compressors.recipe import BaselineCandidate
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.errors import InvalidInputError
from paretune.artifact import load
from profilers.backends.torch_module import TorchModel
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import Capabilities
from tests.helpers import torch_cpu
from tests.unit.workers.test_bench import context
from tests.unit.workers.test_bench import on_device
from workers.operations.bench import Bench
from workers.operations.blocks import table_blocks
from workers.operations.build import build
from workers.operations.build import build_artifact
from workers.operations.evaluate import evaluate
from workers.operations.inputs import JobInputs
from workers.operations.inspect import inspect
from workers.operations.measure import measure
from workers.operations.measure import reference_artifact
from workers.runner.operation import OperationContext
from workers.stages.measure import fusions_of


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with torch_cpu.registered() as name:
        yield on_device(tmp_path_factory.mktemp("torch"), name)


def arguments(inputs: JobInputs, candidate: BaselineCandidate | RecipeCandidate) -> dict[str, Any]:
    return {"inputs": inputs.model_dump(mode="json"), "candidate": candidate.model_dump(mode="json")}


def test_reference_and_baselines_are_the_library_s_own_model_in_each_number_format(work: Bench) -> None:
    inputs, names = work.inputs, get_profiler(torch_cpu.NAME).describe().baselines
    assert names == ("fp32", "torch_bf16", "torch_fp16")
    reference = reference_artifact(inputs)
    assert (reference.format, reference.path.suffix) == ("torch", ".pt2")
    built = {name: build_artifact(inputs, BaselineCandidate(name=name), context(work))[0] for name in names}
    assert built["fp32"].path.samefile(reference.path), "exported once"
    for name, artifact in built.items():
        assert {value.dtype for value in torch.export.load(artifact.path).parameters()} == {DTYPES[name]}
    cpu = torch.device("cpu")
    for text, expected in zip(work.data.workload_feeds("search")[:3], work.dense_outputs["search"], strict=False):
        for name, tolerance in (("fp32", 1e-5), ("torch_bf16", 0.05), ("torch_fp16", 0.01)):
            output = TorchModel.read(built[name], cpu).run(text)["output"]
            assert np.abs(output - expected).max() < tolerance * np.abs(expected).max(), name


def test_a_program_moves_to_the_device_with_everything_that_it_makes_itself(work: Bench) -> None:
    """What stays behind on the CPU fails on a GPU only; the device ``meta`` refuses it everywhere."""
    model = TorchModel.read(reference_artifact(work.inputs), torch.device("meta"))
    inputs = model.fixed_inputs(work.data.workload_feeds("search")[0], work.inputs.workload)
    with torch.inference_mode():
        assert model(inputs).device.type == "meta"


def test_a_candidate_is_written_evaluated_and_measured_as_torch(work: Bench) -> None:
    layer = LayerRecipe(attention=AttentionRecipe(heads=2), feed_forward=FeedForwardRecipe(intermediate_size=16))
    recipe = Recipe(layers=(layer,) * len(work.network.layers), precision="bf16")
    given = arguments(work.inputs, RecipeCandidate(recipe=recipe))
    artifact = Artifact.model_validate(build(given, context(work))["artifact"])
    assert (artifact.format, artifact.precision) == ("torch", "bf16")
    assert load(artifact.path).structure.layers[0].attention.heads == 2
    found = evaluate(given, context(work))
    assert found["size_bytes"] == sum(path.stat().st_size for path in artifact.path.iterdir())
    assert 0.0 <= found["quality"]["fidelity"] <= 1.0
    device = OperationContext("device", work.inputs.work, lambda _: None)
    measuring = {
        "inputs": given["inputs"],
        "artifact": artifact.model_dump(mode="json"),
        "expected_fusions": fusions_of({"anatomy": work.anatomy.model_dump()}, given["candidate"]),
        "give_up_above": None,
        "max_seconds": 1.0,
    }
    measured = measure(measuring, device)
    device.state["stand"].session.close()
    assert measured["measurement"]["ratio"]["value"] > 0
    assert measured["measurement"]["facts"]["profiler"] == torch_cpu.NAME
    assert measured["measurement"]["fusion_parity"] is None
    assert torch_cpu.NAME in measured["measurement"]["fusion_unknown"]


def test_building_blocks_are_torch_models_too(work: Bench) -> None:
    seen = inspect({"inputs": work.inputs.model_dump(mode="json"), "training": None}, context(work))
    assert seen["graph_defaults"]["precision"] == "bf16"
    given = {"inputs": work.inputs.model_dump(mode="json")}
    given |= {name: seen[name] for name in ("anatomy", "capabilities", "graph_defaults")}
    models = table_blocks(given, context(work))
    blocks = [*models["blocks"], *models["steps"]]
    assert bool(models["steps"]) == (max(work.anatomy.intermediate_size) >= 128)
    text = work.data.workload_feeds("search")[0]
    for entry in blocks:
        artifact = Artifact.model_validate(entry["artifact"])
        assert artifact.format == "torch"
        assert np.isfinite(TorchModel.read(artifact, torch.device("cpu")).run(text)["output"]).all()
    assert {entry["artifact"]["precision"] for entry in blocks} == {"f32", "bf16"}


def test_the_form_follows_from_what_a_device_opens() -> None:
    for formats, form in ((("onnx",), "onnx"), (("onnx", "openvino_ir"), "onnx"), (("torch",), "torch")):
        assert Capabilities(profiler="p", available=True, formats=formats).form == form


def test_unknown_baselines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="int8_one_liner"):
        build_torch_baseline("int8_one_liner", tmp_path, "embedding", tmp_path)
