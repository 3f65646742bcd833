"""Real fresh processes."""

import os
import time
from dataclasses import replace

import pytest

from infra.errors import InvalidInputError
from infra.errors import InvalidModelError
from infra.errors import RunnerError
from profilers.fresh import measure_in_fresh_processes
from profilers.fresh import peak_memory
from profilers.fresh import process
from profilers.fresh import repeated
from profilers.fresh.request import FreshRequest
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Workload
from tests.unit.profilers.onnx_models import write_chain

DEVICE = DeviceProfile(name="test", profiler="onnxruntime")
WORKLOAD = Workload(sequence_length=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    write_chain(folder / "model.onnx", width=512)
    write_chain(folder / "small.onnx", width=128)
    write_chain(folder / "large.onnx", width=2048, depth=3)
    (folder / "damaged.onnx").write_bytes((folder / "model.onnx").read_bytes()[:500])
    return folder


def artifact(folder, name):
    return Artifact(path=folder / f"{name}.onnx")


def test_results_of_processes_are_combined(folder, monkeypatch):
    monkeypatch.setattr(repeated, "EXTRA_PROCESSES", 0)
    effort = Effort(half_width=0.2, seconds=1, retreats=0)
    candidates = {"small": artifact(folder, "small")}
    result = measure_in_fresh_processes(
        DEVICE, WORKLOAD, artifact(folder, "model"), candidates, effort, processes=2, memory=True
    )["small"]
    found = result.measurement
    assert found.processes == 2
    assert found.ratio.low <= found.ratio.value <= found.ratio.high
    assert found.ratio.value < 0.5
    assert len(found.facts["process_ratios"]) == 2
    assert found.fusion == found.reference_fusion == {"MatMul": 4, "Relu": 4}
    assert found.peak_memory_mb > 0
    assert set(result.samples.process) == {0, 1}
    assert len(result.samples.candidate_ns) >= found.blocks


def test_operators_are_known_also_when_the_process_that_counted_them_was_noisy(folder, monkeypatch):
    original = repeated._measure_once

    def noisy_first(request, number, *rest):
        results = original(request, number, *rest)
        status = "ok" if number else "noisy"
        return [replace(one, measurement=one.measurement.model_copy(update={"status": status})) for one in results]

    monkeypatch.setattr(repeated, "_measure_once", noisy_first)
    monkeypatch.setattr(repeated, "EXTRA_PROCESSES", 1)
    effort = Effort(half_width=10.0, seconds=0.3, min_blocks=8, retreats=0)
    candidates = {"small": artifact(folder, "small")}
    result = measure_in_fresh_processes(
        DEVICE, WORKLOAD, artifact(folder, "model"), candidates, effort, processes=2, memory=False
    )["small"]
    assert result.measurement.status == "ok", "the first process is not among the chosen"
    assert result.measurement.fusion == result.measurement.reference_fusion == {"MatMul": 4, "Relu": 4}


def test_what_does_not_fit_into_the_time_is_left_out(folder):
    effort = Effort(half_width=10.0, seconds=0.3, min_blocks=8, retreats=0)
    candidates = {"small": artifact(folder, "small")}
    found = measure_in_fresh_processes(
        DEVICE, WORKLOAD, artifact(folder, "model"), candidates, effort, processes=3, seconds=0.1
    )["small"].measurement
    assert found.processes == repeated.LEAST_PROCESSES
    assert found.peak_memory_mb is None


def test_memory_is_not_measured_where_starting_a_process_takes_longer_than_is_left(folder, monkeypatch):
    original, started = repeated._measure_once, []

    def slowly(*arguments):
        time.sleep(2.0)  # what a process on a GPU takes to start
        return original(*arguments)

    monkeypatch.setattr(repeated, "_measure_once", slowly)
    monkeypatch.setattr(repeated, "EXTRA_PROCESSES", 0)
    monkeypatch.setattr(repeated, "peak_memory", lambda *_, **__: started.append(1) or 1.0)
    effort = Effort(half_width=10.0, seconds=0.3, min_blocks=8, retreats=0)
    candidates = {"small": artifact(folder, "small")}
    began = time.monotonic()
    measure_in_fresh_processes(DEVICE, WORKLOAD, artifact(folder, "model"), candidates, effort, processes=2)
    taken = time.monotonic() - began
    assert started == [1]
    measure_in_fresh_processes(
        DEVICE, WORKLOAD, artifact(folder, "model"), candidates, effort, processes=2, seconds=taken + 0.5
    )
    assert started == [1]


def test_peak_memory_follows_the_size_of_the_model(folder):
    small = peak_memory(DEVICE, WORKLOAD, artifact(folder, "small"))
    large = peak_memory(DEVICE, WORKLOAD, artifact(folder, "large"))
    megabytes = (folder / "large.onnx").stat().st_size / 2**20
    assert large - small > 0.9 * megabytes
    assert large < 10 * megabytes


def test_errors_of_the_process_are_ours(folder):
    with pytest.raises(InvalidModelError, match=r"damaged\.onnx"):
        peak_memory(DEVICE, WORKLOAD, artifact(folder, "damaged"))


def test_a_crash_is_told_with_its_cause(folder, monkeypatch):
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setenv("PYTHONPATH", str(folder))
    (folder / "sitecustomize.py").write_text(crash)
    try:
        with pytest.raises(RunnerError, match="SIGSEGV"):
            peak_memory(DEVICE, WORKLOAD, artifact(folder, "small"))
    finally:
        (folder / "sitecustomize.py").unlink()


def test_whoever_waits_can_end_it_and_nothing_is_left(folder, monkeypatch):
    started = []
    original = process.subprocess.Popen
    monkeypatch.setattr(process.subprocess, "Popen", lambda *a, **k: started.append(original(*a, **k)) or started[-1])
    effort = Effort(half_width=1e-9, seconds=60)
    request = FreshRequest(
        kind="measure",
        device=DEVICE,
        workload=WORKLOAD,
        reference=artifact(folder, "model"),
        candidates={"small": artifact(folder, "small")},
        effort=effort,
    )

    def waiting(seconds: float) -> None:
        raise InterruptedError

    begin = time.monotonic()
    with pytest.raises(InterruptedError):
        process.run_fresh(request, waiting=waiting)
    assert time.monotonic() - begin < 10
    with pytest.raises(ProcessLookupError):
        os.kill(started[0].pid, 0)


def test_one_process_is_not_a_repetition(folder):
    with pytest.raises(InvalidInputError, match="two processes"):
        measure_in_fresh_processes(DEVICE, WORKLOAD, artifact(folder, "model"), {}, Effort())
