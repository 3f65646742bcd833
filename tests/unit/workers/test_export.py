"""What is downloaded is what was measured, and its manifest says in what and how to run it there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from compressors.export.manifest import Manifest
from compressors.recipe import BaselineCandidate
from compressors.recipe import GraphRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from compressors.usage import Runtime
from compressors.usage import program_usage
from compressors.usage import torch_usage
from infra.database.models import Job
from infra.database.models import Trial
from infra.errors import InvalidInputError
from profilers.backends import openvino as openvino_backend
from profilers.isa import Cpu
from profilers.registry import get_profiler
from profilers.types import Artifact
from profilers.types import Estimate
from search.graph_choice import GraphChoice
from search.prepared import GraphDefaults
from tests.helpers import torch_cpu
from tests.unit.search import synthetic
from tests.unit.workers.test_bench import context
from tests.unit.workers.test_bench import on_device
from workers.operations.artifacts import note_path
from workers.operations.bench import Bench
from workers.operations.build import build_artifact
from workers.operations.export import export
from workers.stages.export import form_notes

INPUTS = ("input_ids", "attention_mask")


@pytest.fixture(scope="module")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    pytest.importorskip("openvino")
    return on_device(tmp_path_factory.mktemp("openvino"), "openvino")


@pytest.fixture(scope="module")
def torch_device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with torch_cpu.registered() as name:
        yield on_device(tmp_path_factory.mktemp("torch"), name)


def exported(
    work: Bench, candidate: BaselineCandidate | RecipeCandidate, form: str, **more: Any
) -> tuple[Path, Manifest]:
    provenance = {"job_id": "job", "trial": 7, "measurement": None, "confirmed": False} | more
    arguments = {
        "inputs": work.inputs.model_dump(mode="json"),
        "candidate": candidate.model_dump(mode="json"),
        "format": form,
        "provenance": provenance | {"quality": None, "search_quality": None},
    }
    folder = Path(export(arguments, context(work))["folder"])
    return folder, Manifest.model_validate_json((folder / "manifest.json").read_bytes())


def run_usage(manifest: Manifest, folder: Path, monkeypatch: pytest.MonkeyPatch, **names: Any) -> np.ndarray:
    """Run the three lines inside the folder and return what they call output."""
    monkeypatch.chdir(folder)
    assert len(manifest.usage) == 3
    exec("\n".join(manifest.usage), names)
    output = names["output"]
    return output.detach().float().numpy() if isinstance(output, torch.Tensor) else np.asarray(output)


def has_bf16() -> bool:
    from openvino import Core

    return "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def tokens() -> dict[str, torch.Tensor]:
    ids = torch.tensor([[2, 5, 6, 7, 3]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def test_what_is_known_against_a_model_is_in_its_notes(openvino: Bench) -> None:
    candidate = RecipeCandidate(recipe=Recipe.dense(openvino.anatomy.layers))
    for form in ("onnx", "torch"):
        _, manifest = exported(openvino, candidate, form, notes=["Its graph is slower than torch's own export."])
        assert manifest.notes[0] == "Its graph is slower than torch's own export."
        assert "notes" not in manifest.provenance.model_dump(mode="json"), "once is enough"


def test_what_a_fixed_shape_saves_is_told_of_the_form_that_it_was_measured_in() -> None:
    took = {
        form: Estimate(value=value, low=value, high=value) for form, value in (("graph", 0.9), ("float_graph", 0.8))
    }
    choices = {form: GraphChoice(graph=GraphRecipe(), fixed_shape=ratio) for form, ratio in took.items()}
    defaults = GraphDefaults(float_graph=GraphRecipe())
    prepared = synthetic.prepared().model_copy(update={"graph_defaults": defaults}).model_dump(mode="json")
    prepared["graph_choices"] = {form: choice.model_dump(mode="json") for form, choice in choices.items()}
    dense = Recipe.dense(2)
    rounded = dense.model_copy(update={"layers": tuple(layer.with_branches(bits=8) for layer in dense.layers)})

    def notes(candidate: BaselineCandidate | RecipeCandidate, form: str = "onnx", **job: Any) -> list[str]:
        return form_notes(Job(prepared=prepared | job), Trial(candidate=candidate.model_dump(mode="json")), form)

    assert "took 0.800 x" in notes(RecipeCandidate(recipe=dense))[0]
    assert "took 0.900 x" in notes(RecipeCandidate(recipe=rounded))[0]
    assert notes(RecipeCandidate(recipe=dense), "torch") == notes(BaselineCandidate(name="fp32")) == []
    assert notes(RecipeCandidate(recipe=dense), graph_choices={}) == []


@pytest.mark.parametrize("fastest", ["f32", "bf16"])
def test_openvino_s_own_form_is_handed_over_as_it_was_measured(
    openvino: Bench, monkeypatch: pytest.MonkeyPatch, fastest: str
) -> None:
    """In the arithmetic that OpenVINO takes by itself: bf16 where the CPU is faster in it."""
    pytest.importorskip("nncf")
    flags = frozenset({"avx2", "amx_bf16"} if fastest == "bf16" else {"avx2"})
    monkeypatch.setattr(openvino_backend, "this_cpu", lambda: Cpu("a processor", "GenuineIntel", flags))
    candidate = BaselineCandidate(name="openvino_int8")
    note_path(openvino.inputs, candidate).unlink(missing_ok=True)
    artifact, _ = build_artifact(openvino.inputs, candidate, context(openvino))
    folder, manifest = exported(openvino, candidate, "onnx")
    assert manifest.kind == "openvino_ir"
    assert artifact.precision == manifest.provenance.runtime.precision == fastest
    assert f'"INFERENCE_PRECISION_HINT": "{fastest}"' in manifest.usage[2]
    assert any(f"INFERENCE_PRECISION_HINT {fastest}" in note for note in manifest.notes)
    if fastest == "bf16" and not has_bf16():
        return
    assert {"model.xml", "model.bin", "tokenizer.json"} <= manifest.files.keys()
    assert (folder / "model.bin").read_bytes() == artifact.path.with_suffix(".bin").read_bytes()
    output = run_usage(manifest, folder, monkeypatch)
    text = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("Some text.")
    feeds = {"input_ids": text.ids, "attention_mask": text.attention_mask, "token_type_ids": text.type_ids}
    with get_profiler("openvino").open(openvino.inputs.device, openvino.inputs.workload, pinned=False) as session:
        handle = session.load(artifact, static=False)
        expected = handle.run({name: np.array([values]) for name, values in feeds.items()})["logits"]
    assert np.allclose(output, expected, atol=1e-5 if fastest == "f32" else 1e-2)
    with pytest.raises(InvalidInputError, match="does not exist as torch") as refused:
        exported(openvino, candidate, "torch")
    assert "format onnx" in refused.value.hint


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_the_lines_for_openvino_ask_for_the_arithmetic_that_was_measured(
    openvino: Bench, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    layers = len(openvino.network.layers)
    recipe = Recipe.dense(layers).model_copy(update={"precision": precision})
    recipe = recipe.model_copy(update={"graph": recipe.graph.model_copy(update={"operators": "standard"})})
    name = "openvino_bf16" if precision == "bf16" else "fp32"
    for candidate in (BaselineCandidate(name=name), RecipeCandidate(recipe=recipe)):
        folder, manifest = exported(openvino, candidate, "onnx")
        assert manifest.kind == "onnx"
        assert manifest.provenance.runtime == Runtime(profiler="openvino", precision=precision)
        assert f'"INFERENCE_PRECISION_HINT": "{precision}"' in manifest.usage[2]
        assert any(f"INFERENCE_PRECISION_HINT {precision}" in note for note in manifest.notes)
        assert run_usage(manifest, folder, monkeypatch).shape == (1, 2)
    _, manifest = exported(openvino, RecipeCandidate(recipe=recipe), "torch")
    assert "bfloat16" not in "".join(manifest.usage)
    assert any("ONNX form; this one was not measured" in note for note in manifest.notes)


@pytest.mark.parametrize(("name", "form"), [("fp32", "torch"), ("torch_bf16", "onnx")])
def test_a_program_is_handed_over_whichever_format_is_asked_for(
    torch_device: Bench, monkeypatch: pytest.MonkeyPatch, name: Any, form: str
) -> None:
    candidate = BaselineCandidate(name=name)
    artifact, _ = build_artifact(torch_device.inputs, candidate, context(torch_device))
    folder, manifest = exported(torch_device, candidate, form)
    assert (manifest.kind, manifest.provenance.runtime.precision) == ("torch", None)
    assert (folder / "model.pt2").read_bytes() == artifact.path.read_bytes()
    given = tokens()
    expected = torch.export.load(artifact.path).module()(*given.values()).detach().float()
    assert np.allclose(run_usage(manifest, folder, monkeypatch, **given), expected.numpy(), atol=1e-6)


def test_a_bf16_model_of_a_torch_device_runs_in_bf16(torch_device: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe.dense(len(torch_device.network.layers)).model_copy(update={"precision": "bf16"})
    folder, manifest = exported(torch_device, RecipeCandidate(recipe=recipe), "torch")
    output = run_usage(manifest, folder, monkeypatch, **tokens())
    artifact = Artifact(path=folder, format="torch", precision="bf16")
    session = get_profiler(torch_cpu.NAME).open(torch_device.inputs.device, torch_device.inputs.workload, pinned=False)
    with session:
        handle = session.load(artifact)
        expected = handle.run({key: value.numpy() for key, value in tokens().items()})["output"]
        assert handle.facts() == {"dtype": "bfloat16"}
    assert np.array_equal(output, expected)
    _, manifest = exported(torch_device, RecipeCandidate(recipe=recipe), "onnx")
    assert "onnxruntime" in manifest.usage[0]
    assert any("this file was not measured" in note for note in manifest.notes)


def test_the_lines_for_a_gpu_move_model_and_inputs_there() -> None:
    runtime = Runtime(profiler="torch_cuda", precision="bf16", form="torch")
    lines = torch_usage(INPUTS, runtime)
    assert '.to("cuda", torch.bfloat16)' in lines[1]
    assert ".cuda()" in lines[2]
    exact = torch_usage(INPUTS, runtime.model_copy(update={"precision": "f32"}))
    assert '.to("cuda")' in exact[1]
    for some in (lines, exact, program_usage(INPUTS, runtime)):
        compile("\n".join(some), "usage", "exec")
        assert '"cuda"' in some[1]
