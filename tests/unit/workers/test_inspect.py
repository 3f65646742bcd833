"""The first look at a job's inputs: what cannot end well ends there."""

import json
from pathlib import Path

import pytest
from torch.onnx._internal.exporter import _onnx_program

from compressors.export import limits
from infra.errors import InvalidDatasetError
from infra.errors import InvalidModelError
from profilers.types import DeviceProfile
from search.requests import Recover
from tests.helpers import torch_cpu
from tests.unit.workers.test_bench import make_bench
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs
from workers.operations.inspect import inspect
from workers.runner.operation import OperationContext


def seen(inputs: JobInputs, training: Recover | None = None) -> dict[str, object]:
    arguments = {
        "inputs": inputs.model_dump(mode="json"),
        "training": None if training is None else training.model_dump(mode="json"),
    }
    return inspect(arguments, OperationContext("compute", inputs.work, lambda _: None))


def test_a_model_that_does_not_fit_into_one_onnx_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = make_bench(tmp_path)
    size = 4 * work.anatomy.parameters
    monkeypatch.setattr(limits, "ONE_FILE_BYTES", size)
    assert seen(work.inputs)["anatomy"]
    monkeypatch.setattr(limits, "ONE_FILE_BYTES", size - 1)
    with pytest.raises(InvalidModelError, match=r"GiB of weights in float32; .* at most"):
        seen(work.inputs)
    with torch_cpu.registered() as name:  # a device that opens torch models reads no ONNX file
        device = DeviceProfile(name="gpu", profiler=name)
        assert seen(work.inputs.model_copy(update={"device": device}))["anatomy"]


def test_the_limit_is_where_torch_begins_to_write_a_second_file() -> None:
    assert limits.ONE_FILE_BYTES == _onnx_program._LARGE_MODEL_THRESHOLD


@pytest.mark.parametrize("role", ["train", "calibration"])
def test_labels_of_the_training_text_are_checked_before_the_search_if_they_are_used(tmp_path: Path, role: str) -> None:
    work = make_bench(tmp_path)
    path = tmp_path / "more.jsonl"
    texts = [f"a film of {number} good hours" for number in range(20)]
    path.write_text("\n".join(json.dumps({"text": text, "label": 7}) for text in texts))
    inputs = work.inputs.model_copy(update={role: DataFile(path=path, format="jsonl")})
    with pytest.raises(InvalidDatasetError, match="label 7"):
        seen(inputs, Recover(seconds=60))
    assert seen(inputs, Recover(seconds=60, use_labels=False))["labelled"]
    assert seen(inputs)["labelled"]
