import subprocess
import sys
from types import SimpleNamespace

import pytest

from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from infra.errors import UnavailableError
from profilers import registry
from profilers.backends.cuda_rules import GpuState
from profilers.backends.cuda_rules import availability
from profilers.backends.cuda_rules import gpu_facts
from profilers.backends.cuda_rules import is_disturbed
from profilers.backends.cuda_rules import is_warm
from profilers.backends.cuda_rules import throttling
from profilers.protocol import Profiler
from profilers.registry import get_profiler
from profilers.registry import profiler_names
from profilers.types import DeviceProfile
from profilers.types import Workload


def test_the_built_in_profilers_are_always_there():
    assert {"onnxruntime", "openvino", "torch_cuda"} <= set(profiler_names())
    for name in profiler_names():
        profiler = get_profiler(name)
        assert isinstance(profiler, Profiler)
        assert profiler.describe().profiler == name


def test_an_unknown_profiler_is_answered_with_those_that_exist():
    with pytest.raises(NotFoundError, match="'abacus'") as caught:
        get_profiler("abacus")
    assert "onnxruntime" in caught.value.hint


def test_an_installed_plugin_is_found_and_its_version_checked(monkeypatch):
    class Point:
        name, value = "old_plugin", "tests.unit.profilers.test_registry:OldProfiler"

    class Broken:
        name, value = "broken_plugin", "no.such.module:Thing"

    monkeypatch.setattr(registry, "entry_points", lambda group: [Point, Broken])
    assert {"old_plugin", "onnxruntime"} <= set(profiler_names())
    with pytest.raises(InvalidInputError, match="protocol version 0"):
        get_profiler("old_plugin")
    with pytest.raises(InvalidInputError, match="cannot be loaded"):
        get_profiler("broken_plugin")


class OldProfiler:
    api_version = 0


def test_describing_imports_no_runtime():
    code = (
        "import sys\n"
        "from profilers.registry import get_profiler, profiler_names\n"
        "[get_profiler(name).describe() for name in ('onnxruntime', 'openvino', 'torch_cuda')]\n"
        "heavy = {'torch', 'onnxruntime', 'openvino', 'nncf', 'onnx', 'tokenizers'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_unknown_device_options_are_refused(name):
    device = DeviceProfile(name="d", profiler=name, options={"afinity": [0]})
    with pytest.raises(InvalidInputError, match="afinity") as caught:
        get_profiler(name).open(device, Workload())
    assert "affinity" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "nodes", "available", "reason"),
    [
        (None, True, False, "not installed"),
        ("2.13.0+cpu", True, False, "without CUDA"),
        ("2.13.0+cu130", False, False, "no NVIDIA GPU"),
        ("2.13.0", True, True, ""),
    ],
)
def test_cuda_availability(version, nodes, available, reason):
    found = availability(version, device_nodes=nodes)
    assert found[0] is available
    assert reason in found[1]


def test_the_facts_of_a_gpu_are_its_name_memory_and_versions():
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=150_000_000_000, major=9, minor=0, uuid="u")
    assert gpu_facts(properties, "580.95.05", "13.0") == {
        "gpu": "NVIDIA H200",
        "gpu_memory": 150_000_000_000,
        "compute_capability": "9.0",
        "driver": "580.95.05",
        "cuda": "13.0",
    }
    assert gpu_facts(properties, None, None)["driver"] is None


@pytest.mark.parametrize("index", ["0", -1, 1.5, True])
def test_the_index_of_a_gpu_is_a_number(index):
    device = DeviceProfile(name="gpu", profiler="torch_cuda", options={"index": index})
    with pytest.raises(InvalidInputError, match="'index' is"):
        get_profiler("torch_cuda").device_facts(device)


def test_a_gpu_that_is_not_there_is_said_so():
    device = DeviceProfile(name="gpu", profiler="torch_cuda", options={"index": 99})
    with pytest.raises(UnavailableError, match="The GPU 99 cannot be used"):
        get_profiler("torch_cuda").device_facts(device)


def test_gpu_blocks_are_disturbed_by_throttling_falling_clocks_and_others():
    good = GpuState(1980)
    assert not is_disturbed(good, good, 1980)
    assert not is_disturbed(good, GpuState(1980, reasons=0x1), None)  # idle between blocks
    assert is_disturbed(good, GpuState(1980, reasons=0x4), None)
    assert is_disturbed(good, GpuState(1500), 1980)
    assert not is_disturbed(GpuState(None), GpuState(None), 1980)
    busy, crowded = GpuState(1980, foreign=1), GpuState(1980, foreign=2)
    assert is_disturbed(good, busy, 1980)
    assert is_disturbed(busy, good, 1980)
    assert not is_disturbed(busy, busy, 1980, foreign_at_open=1)
    assert is_disturbed(busy, crowded, 1980, foreign_at_open=1)
    assert throttling(0x44) == ["software power cap", "hardware thermal slowdown"]


@pytest.mark.parametrize(
    ("seconds", "clocks", "warm"),
    [
        (1.0, [1980, 1980], False),  # too short, however steady
        (3.0, [], False),
        (3.0, [1980], False),
        (3.5, [345, 1200, 1980], False),
        (4.0, [345, 1200, 1950, 1980], True),
        (4.0, [1980, 1980, 1700], False),
        (3.0, [None, None], True),  # a clock that is unknown cannot be waited for
        (10.0, [1200, 1980], True),  # nor one that never settles
    ],
)
def test_a_gpu_is_warm_when_its_clock_has_settled(seconds, clocks, warm):
    assert is_warm(seconds, clocks) is warm
