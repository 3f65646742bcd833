import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save_file

from compressors.anatomy import describe
from compressors.anatomy import load_network
from compressors.anatomy import load_reference_model
from compressors.network import PoolingHead
from compressors.torch_module import to_module
from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from tests.helpers.tiny_models import make_tiny_model
from tests.unit.compressors.conftest import FAMILIES
from tests.unit.compressors.conftest import TASKS
from tests.unit.compressors.conftest import make_batches


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model_type", FAMILIES)
@torch.no_grad()
def test_network_computes_what_the_library_computes(model_dirs: Callable[..., Path], model_type: str, task: str):
    directory = model_dirs(model_type, task)
    module, reference = to_module(load_network(directory, task)), load_reference_model(directory, task)
    for batch in make_batches(directory):
        assert not batch["attention_mask"].all(), "the batch must exercise the padding mask"
        torch.testing.assert_close(module(**batch), reference(**batch), atol=2e-6, rtol=1e-5)


@torch.no_grad()
def test_token_types_are_read(bert_dir: Path):
    module = to_module(load_network(bert_dir, "sequence-classification"))
    reference = load_reference_model(bert_dir, "sequence-classification")
    batch = make_batches(bert_dir)[0]
    first = module(**batch)
    batch["token_type_ids"] = torch.ones_like(batch["token_type_ids"])
    torch.testing.assert_close(module(**batch), reference(**batch), atol=2e-6, rtol=1e-5)
    assert not torch.allclose(module(**batch), first)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_anatomy_matches_what_was_made(tmp_path: Path, model_type: str):
    directory = make_tiny_model(tmp_path, model_type, layers=3, hidden_size=24, heads=3, intermediate_size=40, labels=5)
    anatomy = describe(load_network(directory, "sequence-classification"))
    assert (anatomy.layers, anatomy.hidden_size, anatomy.head_size) == (3, 24, 8)
    assert anatomy.heads == (3, 3, 3)
    assert anatomy.intermediate_size == (40, 40, 40)
    assert anatomy.max_sequence_length == 64
    assert len(anatomy.labels) == 5
    assert anatomy.has_token_types == (model_type == "bert")
    assert anatomy.model_type == model_type
    unused = 64 if model_type != "bert" else 0  # RoBERTa's table has rows before the first position
    stored = sum(tensor.numel() for tensor in load_file(directory / "model.safetensors").values())
    assert stored - unused <= anatomy.parameters <= stored


@pytest.mark.parametrize(
    ("mode", "expected"), [("pooling_mode_mean_tokens", "mean"), ("pooling_mode_cls_token", "cls")]
)
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_comes_from_the_folder(tmp_path: Path, mode: str, expected: str, normalize: bool):
    directory = make_tiny_model(tmp_path, "bert", "embedding")
    (directory / "1_Pooling" / "config.json").write_text(json.dumps({mode: True, "word_embedding_dimension": 32}))
    modules = json.loads((directory / "modules.json").read_text())
    (directory / "modules.json").write_text(json.dumps(modules if normalize else modules[:2]))
    network = load_network(directory, "embedding")
    assert network.head == PoolingHead(expected, normalize)
    batch = make_batches(directory)[0]
    with torch.no_grad():
        output = to_module(network)(**batch)
        torch.testing.assert_close(output, load_reference_model(directory, "embedding")(**batch), atol=2e-6, rtol=1e-5)
    assert torch.allclose(output.norm(dim=1), torch.ones(len(output))) == normalize


def test_without_pooling_files_the_mean_is_normalised(tmp_path: Path):
    directory = make_tiny_model(tmp_path, "distilbert", "embedding")
    (directory / "modules.json").unlink()
    shutil.rmtree(directory / "1_Pooling")
    assert load_network(directory, "embedding").head == PoolingHead("mean", True)


def test_a_classifier_can_serve_as_an_embedding_model(bert_dir: Path):
    assert isinstance(load_network(bert_dir, "embedding").head, PoolingHead)


def _edit_config(directory: Path, **changes: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _drop_tensor(directory: Path) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors.pop("classifier.weight")
    save_file(tensors, path, metadata={"format": "pt"})


def _poison(directory: Path) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"][0] = float("nan")
    save_file(tensors, path, metadata={"format": "pt"})


def _truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickle(directory: Path) -> None:
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: _edit_config(d, model_type="gpt2"), "distilbert"),
        (lambda d: _edit_config(d, model_type=["bert"]), "distilbert"),
        (lambda d: _edit_config(d, architectures=["BertModel"]), "ForSequenceClassification"),
        (lambda d: _edit_config(d, problem_type="regression"), "regression"),
        (lambda d: _edit_config(d, is_decoder=True), "decoder"),
        (lambda d: _edit_config(d, hidden_act="silu"), "silu"),
        (lambda d: _edit_config(d, hidden_size=48), "cannot be loaded"),
        (lambda d: _edit_config(d, num_hidden_layers=3), "lacks"),
        (lambda d: (d / "config.json").write_text("{"), "JSON"),
        (lambda d: (d / "config.json").unlink(), "config.json"),
        (_drop_tensor, "classifier.weight"),
        (_poison, "classifier.bias"),
        (_truncate, "cannot be loaded"),
        (_pickle, "cannot be loaded"),
    ],
)
def test_unusable_folders_are_refused_with_a_reason(
    tmp_path: Path, bert_dir: Path, damage: Callable[[Path], object], words: str
):
    directory = tmp_path / "model"
    shutil.copytree(bert_dir, directory)
    damage(directory)
    with pytest.raises(InvalidModelError) as caught:
        load_network(directory, "sequence-classification")
    assert words in caught.value.message + caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}),
        ("modules.json", [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]),
        ("modules.json", [{"type": "sentence_transformers.models.Pooling", "path": "../elsewhere"}]),
        ("modules.json", {"type": "Pooling"}),
    ],
)
def test_poolings_that_cannot_be_expressed_are_refused(tmp_path: Path, name: str, content: object):
    directory = make_tiny_model(tmp_path / "model", "bert", "embedding")
    (directory / name).write_text(json.dumps(content))
    with pytest.raises(InvalidModelError):
        load_network(directory, "embedding")


def test_an_unknown_task_is_the_users_mistake(bert_dir: Path):
    with pytest.raises(InvalidInputError, match="summarisation"):
        load_network(bert_dir, "summarisation")
