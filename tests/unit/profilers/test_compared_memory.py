"""Memory as the objective: real processes, real models."""

import pytest

from profilers.fresh import by_memory
from profilers.fresh import reference_memory
from profilers.fresh import repeat_peak_memory
from profilers.fresh.compared_memory import ReferenceMemory
from profilers.fresh.compared_memory import memory_ratio
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Estimate
from profilers.types import Measurement
from profilers.types import Workload
from tests.unit.profilers.onnx_models import write_chain

DEVICE = DeviceProfile(name="test", profiler="onnxruntime")
WORKLOAD = Workload(sequence_length=32)
ONE = Estimate(value=1.0, low=0.99, high=1.01)
TIMED = Measurement(
    status="noisy",
    ratio=ONE,
    latency_ms=2.0,
    reference_ms=3.0,
    p90_ratio=1.0,
    control_ratio=ONE,
    blocks=8,
    dropped_blocks=0,
    seconds=1.0,
)


def test_a_smaller_model_takes_less_memory_and_the_control_is_one(tmp_path):
    write_chain(tmp_path / "large.onnx", width=1536, depth=3)
    write_chain(tmp_path / "small.onnx", width=768, depth=3)
    reference = reference_memory(DEVICE, WORKLOAD, Artifact(path=tmp_path / "large.onnx"), 2)
    taken = repeat_peak_memory(DEVICE, WORKLOAD, Artifact(path=tmp_path / "small.onnx"), 2)
    found = by_memory(TIMED, taken, reference)
    # No word about its status and the interval of the control: one time in twenty, two processes differ by chance.
    assert found.objective == "peak_memory"
    assert found.control_ratio.value == pytest.approx(1.0, abs=0.25)
    assert 0.15 < found.ratio.value < 0.6  # a quarter of the weights, beside what does not shrink
    assert found.peak_memory_mb / found.reference_memory_mb == pytest.approx(found.ratio.value, rel=0.05)
    assert len(found.facts["memory_mb"]["control"]) == 2
    assert found.latency_ms == TIMED.latency_ms


def test_the_runtime_itself_is_not_counted(tmp_path):
    """ONNX Runtime's library alone takes more memory than this model."""
    write_chain(tmp_path / "tiny.onnx", width=16)
    (taken, _) = repeat_peak_memory(DEVICE, WORKLOAD, Artifact(path=tmp_path / "tiny.onnx"), 2)
    assert taken < 15


def test_intervals_and_statuses_follow_the_spread():
    steady = ReferenceMemory((100.0, 100.1, 99.9), (100.0, 100.0, 100.1))
    exact = memory_ratio((50.0, 50.0, 50.0), (100.0, 100.0, 100.0))
    assert exact.low < 0.5 < exact.high  # never of no width
    wide = memory_ratio((40.0, 50.0, 60.0), steady.samples)
    assert wide.high / wide.low > 1.5
    assert by_memory(TIMED, (50.0, 50.1, 49.9), steady).status == "ok"
    assert by_memory(TIMED, (40.0, 50.0, 60.0), steady).status == "noisy"
    assert by_memory(TIMED, (50.0, 50.1, 49.9), steady, give_up_above=0.4).status == "slower_than_front"
    unsteady = ReferenceMemory((100.0, 100.1, 99.9), (110.0, 110.1, 109.9))
    assert by_memory(TIMED, (50.0, 50.1, 49.9), unsteady).status == "noisy"
