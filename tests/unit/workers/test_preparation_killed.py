"""kill -9 while a job is prepared: the next attempt goes on after the last layer, or branch, that was done."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from compressors.calibration import Calibration
from compressors.calibration import calibrate
from compressors.calibration import collect
from compressors.options import database
from infra.database.models import JsonObject
from tests.unit.workers.test_bench import make_bench
from workers.operations.bench import Bench
from workers.operations.options import options
from workers.operations.prepare import prepare
from workers.runner.operation import Operation
from workers.runner.operation import OperationContext

OFFERED = {"zeros": False}


@pytest.fixture
def work(tmp_path: Path) -> Bench:
    """A job that is not prepared."""
    found = make_bench(tmp_path)
    found.inputs.calibration_file.unlink()
    return Bench(found.inputs)


def run(operation: Operation, arguments: JsonObject, folder: Path) -> tuple[JsonObject, list[JsonObject]]:
    reports: list[JsonObject] = []
    return operation(arguments, OperationContext("compute", folder, reports.append)), reports


def run_until_killed(operation: Operation, arguments: JsonObject, folder: Path, doing: str, done: int) -> None:
    """Run in a process of its own that gets SIGKILL right after a report."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_run_and_die, args=(operation, arguments, folder, doing, done))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL


def _run_and_die(operation: Operation, arguments: JsonObject, folder: Path, doing: str, done: int) -> None:
    def report(payload: JsonObject) -> None:
        if payload["doing"] == doing and payload.get("done") == done:
            os.kill(os.getpid(), signal.SIGKILL)

    operation(arguments, OperationContext("compute", folder, report))


def counted(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> list[object]:
    """Count the calls of a function that goes on to do its work."""
    calls: list[object] = []
    original: Callable[..., object] = getattr(owner, name)

    def wrapper(*arguments: object, **named: object) -> object:
        calls.append(name)
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, wrapper)
    return calls


def test_a_killed_calibration_goes_on_with_the_next_layer(work: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = work.inputs
    arguments = inputs.model_dump(mode="json")
    expected = calibrate(work.network, work.calibration_batches())
    run_until_killed(prepare, arguments, inputs.work, "calibrating", 1)
    assert [path.name for path in inputs.calibration_parts.iterdir()] == ["layer.0.safetensors"]
    assert not inputs.calibration_file.exists()

    calls = counted(monkeypatch, collect, "_run_layer")
    _, reports = run(prepare, arguments, inputs.work)
    assert len(calls) == len(work.network.layers) - 1 == 1
    assert [entry["done"] for entry in reports if "done" in entry] == [1, 2]
    assert not inputs.calibration_parts.exists()
    found = Calibration.load(inputs.calibration_file)
    assert (found.tokens, found.similarity) == (expected.tokens, pytest.approx(expected.similarity, rel=1e-6))
    assert found.inputs.keys() == expected.inputs.keys()
    for key in expected.inputs:
        assert found.at(*key).count == expected.at(*key).count
        torch.testing.assert_close(found.at(*key).centred, expected.at(*key).centred, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(found.at(*key).mean, expected.at(*key).mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("leftover", ["damaged", "other text"])
def test_a_layer_that_cannot_be_used_is_calibrated_again(
    work: Bench, monkeypatch: pytest.MonkeyPatch, leftover: str
) -> None:
    batches = list(work.calibration_batches())
    repeat = partial(calibrate, work.network, folder=work.inputs.calibration_parts)
    repeat(batches if leftover == "damaged" else batches[1:])
    if leftover == "damaged":
        file = work.inputs.calibration_parts / "layer.1.safetensors"
        file.write_bytes(file.read_bytes()[:-8])
    calls = counted(monkeypatch, collect, "_run_layer")
    assert repeat(batches).tokens == calibrate(work.network, batches).tokens
    assert len(calls) - 2 == {"damaged": 1, "other text": 2}[leftover]


def test_a_killed_option_database_goes_on_with_the_next_branch(work: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = work.inputs
    calibrate(work.network, work.calibration_batches()).save(inputs.calibration_file)
    arguments = {"inputs": inputs.model_dump(mode="json"), "offered": OFFERED}
    run_until_killed(options, arguments, inputs.work, "options", 3)

    calls = counted(monkeypatch, database._Unit, "build")
    resumed, _ = run(options, arguments, inputs.work)
    assert len(calls) == 1
    other = inputs.model_copy(update={"work": inputs.work / "other"})
    other.work.mkdir()
    inputs.calibration_file.rename(other.calibration_file)
    whole, _ = run(options, arguments | {"inputs": other.model_dump(mode="json")}, other.work)
    assert len(calls) == 1 + 4
    assert [unit["layer"] for unit in resumed["options"]["units"]] == [0, 0, 1, 1]
    for one, two in zip(_numbers(resumed["options"]), _numbers(whole["options"]), strict=True):
        assert one == pytest.approx(two, rel=1e-4, abs=1e-7)

    run(options, arguments | {"inputs": other.model_dump(mode="json"), "offered": {"zeros": True}}, other.work)
    assert len(calls) == 1 + 4 + 4, "branches of other options are others"


def _numbers(found: JsonObject) -> list[float]:
    options_ = [option for unit in found["units"] for option in unit["options"]]
    merges = [merge["divergence"] for merge in found["merges"]]
    return [value for option in options_ for value in (option["error"], option["divergence"])] + merges
