"""The folders that users download are complete, load as their manifest says, and are checked."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import paretune.artifact
from compressors.anatomy import load_reference_model
from compressors.export import onnx_folder
from compressors.export.checks import ExportMismatchError
from compressors.export.checks import check_onnx
from compressors.export.checks import example_feeds
from compressors.export.checks import module_runner
from compressors.export.manifest import Manifest
from compressors.export.manifest import Provenance
from compressors.export.manifest import file_sha256
from compressors.export.onnx import write_onnx
from compressors.export.onnx.artifact import OnnxArtifact
from compressors.export.onnx_folder import export_onnx_folder
from compressors.export.torch_folder import export_torch_folder
from compressors.network import EncoderNetwork
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from compressors.torch_module import to_module
from profilers.isa import this_cpu
from tests.unit.export.conftest import in_bits

BERT = ("bert", "sequence-classification")
EMBEDDING = ("bert", "embedding")
Networks = dict[tuple[str, str], EncoderNetwork]
Folders = dict[tuple[str, str], Path]


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
def test_onnx_folder(networks: Networks, folders: Folders, tmp_path: Path, scheme: str) -> None:
    network = in_bits(networks[BERT], 8)
    recipe = Recipe.dense(3).model_copy(
        update={"quantization": QuantizationRecipe(scheme=scheme, reduce_range=this_cpu().saturating_int8)}
    )
    provenance = Provenance(task=BERT[1], quality=[{"metric": "accuracy", "value": 0.9}])
    feeds = example_feeds(network, seed=1)
    manifest = export_onnx_folder(network, recipe, folders[BERT], tmp_path, provenance, static=(2, 8), feeds=feeds)
    assert manifest == Manifest.model_validate_json((tmp_path / "manifest.json").read_bytes())
    assert manifest.digest == recipe.digest
    assert {"model.onnx", "model_static.onnx", "config.json", "tokenizer.json"} <= manifest.files.keys()
    for name, entry in manifest.files.items():
        assert file_sha256(tmp_path / name) == entry.sha256
    assert manifest.model_files["model.safetensors"] == file_sha256(folders[BERT] / "model.safetensors")
    assert 0 < manifest.check.relative_error <= manifest.check.tolerance
    assert 0 < manifest.static_check.relative_error <= manifest.static_check.tolerance
    assert set(manifest.static_check.shapes) == {(2, 8)}


@pytest.mark.parametrize("bits", [32, 8])
def test_a_fixed_shape_that_is_another_function_is_left_out(
    networks: Networks, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    def damaging(network: EncoderNetwork, recipe: Recipe, path: Path, **options: Any) -> OnnxArtifact:
        """Write the file, and lose a bias where the shape is fixed."""
        artifact = write_onnx(network, recipe, path, **options)
        if options.get("static") is not None:
            _lose_bias(path)
        return artifact

    monkeypatch.setattr(onnx_folder, "write_onnx", damaging)
    network = in_bits(networks[BERT], bits)
    quantization = QuantizationRecipe(reduce_range=this_cpu().saturating_int8)
    recipe = Recipe.dense(3).model_copy(update={"quantization": quantization})
    provenance = Provenance(task=BERT[1])
    manifest = export_onnx_folder(network, recipe, folders[BERT], tmp_path, provenance, static=(1, 8))
    assert manifest.static_check is None
    assert "model_static.onnx" not in manifest.files
    assert not (tmp_path / "model_static.onnx").exists()
    assert any("did not pass its check" in note for note in manifest.notes)
    assert manifest.check.relative_error <= manifest.check.tolerance


def _lose_bias(path: Path) -> None:
    model = onnx.load(path)
    bias = next(item for item in model.graph.initializer if item.name == "layer.1.feed_forward.up.bias")
    bias.raw_data = bytes(len(bias.raw_data))
    onnx.save(model, path)


def test_the_lines_of_usage_run(
    networks: Networks, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = export_onnx_folder(networks[BERT], Recipe.dense(3), folders[BERT], tmp_path, Provenance(task=BERT[1]))
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec("\n".join(manifest.usage), scope)
    assert np.shape(scope["output"]) == (1, 2)


def test_torch_folder(networks: Networks, folders: Folders, tmp_path: Path) -> None:
    network = networks[EMBEDDING]
    manifest = export_torch_folder(network, Recipe.dense(3), folders[EMBEDDING], tmp_path, Provenance(task="embedding"))
    assert {"model.safetensors", "structure.json", "model.pt2", "1_Pooling/config.json"} <= manifest.files.keys()
    feeds = example_feeds(network, seed=5)
    expected = module_runner(to_module(network))
    loaded = module_runner(paretune.artifact.load(tmp_path))
    program = torch.export.load(tmp_path / "model.pt2").module()
    for item in feeds:
        assert np.allclose(loaded(item), expected(item), atol=1e-6)
        with torch.inference_mode():
            output = program(*(torch.from_numpy(item[name]) for name in manifest.inputs))
        assert np.allclose(output.numpy(), expected(item), atol=1e-5)


def test_all_shards_of_the_dense_model_are_named(networks: Networks, folders: Folders, tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    load_reference_model(folders[BERT], BERT[1]).model.save_pretrained(dense, max_shard_size="30KB")
    shards = {path.name for path in dense.glob("model-*.safetensors")}
    assert len(shards) > 1
    assert not (dense / "model.safetensors").exists()
    manifest = export_onnx_folder(networks[BERT], Recipe.dense(3), dense, tmp_path / "out", Provenance(task=BERT[1]))
    assert shards | {"model.safetensors.index.json", "config.json"} == manifest.model_files.keys()
    assert all(manifest.model_files[name] == file_sha256(dense / name) for name in shards)


def test_a_damaged_graph_is_not_offered(networks: Networks, folders: Folders, tmp_path: Path) -> None:
    network = networks[BERT]
    export_onnx_folder(network, Recipe.dense(3), folders[BERT], tmp_path, Provenance(task=BERT[1]))
    damaged = Path(shutil.copy(tmp_path / "model.onnx", tmp_path / "damaged.onnx"))
    _lose_bias(damaged)
    with pytest.raises(ExportMismatchError):
        check_onnx(damaged, network, QuantizationRecipe())


def test_the_folder_does_not_need_the_service(networks: Networks, folders: Folders, tmp_path: Path) -> None:
    export_onnx_folder(
        networks[EMBEDDING], Recipe.dense(3), folders[EMBEDDING], tmp_path / "out", Provenance(task="embedding")
    )
    moved = Path(shutil.move(tmp_path / "out", tmp_path / "elsewhere"))
    inputs = json.loads((moved / "manifest.json").read_text())["inputs"]
    session = onnxruntime.InferenceSession(moved / "model.onnx")
    vectors = session.run(None, {name: np.ones((2, 5), np.int64) * (name != "token_type_ids") for name in inputs})[0]
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
