import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

import paretune
from compressors.calibration import Calibration
from compressors.network import EncoderNetwork
from compressors.tensors import named_tensors
from compressors.torch_module import to_module
from compressors.torch_module import with_tensors
from infra.errors import InvalidInputError
from paretune.artifact import save
from paretune.artifact.loader import ArtifactError
from tests.unit.compressors.recipes import uneven_candidate


@torch.no_grad()
def test_an_uneven_model_survives_the_file(
    tmp_path: Path, bert: EncoderNetwork, calibration: Calibration, batches: list[dict[str, Tensor]]
):
    candidate = uneven_candidate(bert, calibration)
    module = to_module(candidate)
    save(module, tmp_path)
    loaded = paretune.load(tmp_path)
    assert not loaded.training
    for batch in batches:
        assert torch.equal(loaded(**batch), module(**batch))
    assert json.loads((tmp_path / "structure.json").read_text())["layers"][0]["attention"]["heads"] == 3


def test_equal_models_give_equal_files(tmp_path: Path, bert: EncoderNetwork, calibration: Calibration):
    for name in ("first", "second"):
        save(to_module(uneven_candidate(bert, calibration)), tmp_path / name)
    for file in ("structure.json", "model.safetensors"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def _change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: _change(folder / "structure.json", version=2),
        lambda folder: _change(folder / "structure.json", hidden_size=16),
        lambda folder: _change(folder / "structure.json", unheard_of=1),
        lambda folder: (folder / "structure.json").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-9]),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, bert: EncoderNetwork, damage):
    save(to_module(bert), tmp_path)
    damage(tmp_path)
    with pytest.raises(ArtifactError):
        paretune.load(tmp_path)


def test_training_changes_the_module_and_not_the_network(
    bert: EncoderNetwork, calibration: Calibration, batches: list[dict[str, Tensor]]
):
    candidate = uneven_candidate(bert, calibration)
    before = {name: tensor.clone() for name, tensor in named_tensors(candidate).items()}
    module = to_module(candidate)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    module(**batches[0]).square().sum().backward()
    # The pooler reads the first token only, but every layer lies on its path.
    assert all(parameter.grad is not None for parameter in module.parameters())
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in named_tensors(candidate).items())
    trained = with_tensors(candidate, dict(module.state_dict()))
    assert not torch.equal(trained.layers[0].attention_norm.weight, candidate.layers[0].attention_norm.weight)
    with torch.no_grad():
        torch.testing.assert_close(to_module(trained)(**batches[1]), module(**batches[1]), atol=0, rtol=0)


def test_weights_of_another_structure_are_refused(bert: EncoderNetwork, calibration: Calibration):
    with pytest.raises(InvalidInputError, match="do not fit"):
        with_tensors(bert, dict(to_module(uneven_candidate(bert, calibration)).state_dict()))


def test_the_package_loads_without_torch():
    code = "import sys, paretune, paretune.artifact; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
