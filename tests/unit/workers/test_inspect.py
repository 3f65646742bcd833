"""The first look at a job's inputs: what cannot end well ends there."""

from pathlib import Path

import pytest
from torch.onnx._internal.exporter import _onnx_program

from compressors.export import limits
from infra.errors import InvalidModelError
from profilers.types import DeviceProfile
from tests.helpers import torch_cpu
from tests.unit.workers.test_bench import make_bench
from workers.operations.inputs import JobInputs
from workers.operations.inspect import inspect
from workers.runner.operation import OperationContext


def seen(inputs: JobInputs) -> dict[str, object]:
    return inspect(inputs.model_dump(mode="json"), OperationContext("compute", inputs.work, lambda _: None))


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
