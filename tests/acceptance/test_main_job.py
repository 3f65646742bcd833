"""The main job through the real service, and what happens to bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import paretune
from tests.acceptance.conftest import Service
from tests.helpers.tiny_models import make_dataset

WORKLOAD = {"batch": 1, "sequence_length": 16, "threads": 1}


@pytest.fixture(scope="module")
def finished(client: paretune.Client, model_folder: Path, dataset_file: Path) -> paretune.types.Job:
    model, data = client.upload_model(model_folder), client.upload_dataset(dataset_file)
    job = client.submit(model, data, budget_trials=4, budget_seconds=None, workload=WORKLOAD, strategy="direct")
    return client.wait(job, timeout=240)


def test_the_job_ends_with_a_report(client: paretune.Client, finished: paretune.types.Job) -> None:
    front = client.front(finished)
    assert front["status"] == "confirmed"
    baselines = {entry["name"]: entry for entry in front["baselines"]}
    assert {"fp32", "int8_one_liner"} <= set(baselines)
    assert baselines["fp32"]["quality"]["split"] == "holdout"
    assert baselines["fp32"]["latency"]["ratio"]["low"] <= 1.05
    assert front["trials"].get("failed", 0) == 0
    report = client.report(finished)
    assert report["summary"]["verdict"]
    assert report["summary"]["wall_seconds"]["total"] > report["summary"]["wall_seconds"]["search"] > 0


def test_every_trial_is_accounted_for(client: paretune.Client, finished: paretune.types.Job) -> None:
    trials = list(client.trials(finished))
    assert [trial["number"] for trial in trials] == list(range(len(trials)))
    assert len({trial["digest"] for trial in trials}) == len(trials)
    assert sum(trial["kind"] == "recipe" for trial in trials) == 4
    for trial in trials:
        assert trial["state"] in {"complete", "rejected"}
        assert trial["quality"] is not None


def test_downloads_load_and_agree(client: paretune.Client, finished: paretune.types.Job, tmp_path: Path) -> None:
    recipe = next(trial for trial in client.trials(finished) if trial["kind"] == "recipe")
    client.download(finished, "onnx", tmp_path / "onnx", trial=recipe["number"])
    client.download(finished, "torch", tmp_path / "torch", trial=recipe["number"])
    manifest = json.loads((tmp_path / "onnx" / "manifest.json").read_text())
    assert manifest["candidate"]["recipe"] == recipe["recipe"]
    assert (tmp_path / "onnx" / "tokenizer.json").exists()
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    module = paretune.load(tmp_path / "torch")
    ids = np.array([[2, 7, 9, 11, 3], [2, 8, 3, 0, 0]], dtype=np.int64)
    everything = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64), "token_type_ids": 0 * ids}
    feeds = {value.name: everything[value.name] for value in session.get_inputs()}
    from_onnx = session.run(None, feeds)[0]
    with torch.inference_mode():
        from_torch = module(**{name: torch.from_numpy(value) for name, value in feeds.items()}).numpy()
    bits = {layer["attention"]["bits"] for layer in recipe["recipe"]["layers"]}
    tolerance = 1e-4 if bits == {32} else 0.2 * np.abs(from_torch).max()
    np.testing.assert_allclose(from_onnx, from_torch, atol=tolerance)


def test_memory_is_measured_and_named_where_it_is_the_objective(
    client: paretune.Client, model_folder: Path, dataset_file: Path
) -> None:
    """Other jobs of these tests have p50; that which is killed has p99, that which trains has throughput."""
    model, data = client.upload_model(model_folder), client.upload_dataset(dataset_file)
    job = client.submit(
        model,
        data,
        objective="peak_memory",
        budget_trials=3,
        budget_seconds=None,
        workload=WORKLOAD,
        strategy="guided",
        space={"formats": ["int4_weights"]},
    )
    assert client.wait(job, timeout=240).state == "succeeded"
    front = client.front(job)
    assert front["objective"] == client.report(job)["summary"]["objective"] == "peak_memory"
    measured = [trial["latency"] for trial in client.trials(job) if trial["latency"]]
    assert {latency["objective"] for latency in measured} == {"peak_memory"}
    dense = next(entry["latency"] for entry in front["baselines"] if entry["name"] == "fp32")
    assert dense["ratio"]["low"] * 0.9 <= 1.0 <= dense["ratio"]["high"] * 1.1
    for latency in measured:
        ratio = latency["peak_memory_mb"] / latency["reference_memory_mb"]
        assert ratio == pytest.approx(latency["ratio"]["value"], rel=0.1)
    four = next(trial for trial in client.trials(job) if trial["name"] == "dense int4 weights")
    assert four["layers"][0]["feed_forward_bits"] == 4
    assert four["size_bytes"] < 0.5 * next(t["size_bytes"] for t in client.trials(job) if t["name"] == "fp32")
    assert "peak memory, MB" in client.report_html(job)


def test_the_command_line_speaks_json(service: Service, finished: paretune.types.Job) -> None:
    command = [sys.executable, "-m", "paretune.cli.app", "best", finished.id, "--json", "--home", str(service.home)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    best = json.loads(result.stdout)
    assert result.returncode == 0, result.stderr
    assert {"recipe", "latency", "quality"} <= set(best)


def test_a_backup_of_the_running_service_is_a_service_again(
    client: paretune.Client, service: Service, finished: paretune.types.Job, tmp_path: Path
) -> None:
    client.download(finished, "onnx", tmp_path / "before")
    cli = [sys.executable, "-m", "paretune.cli.app"]
    backup, home = str(tmp_path / "backup"), tmp_path / "restored"
    subprocess.run([*cli, "backup", backup, "--home", str(service.home), "--json"], check=True)
    subprocess.run([*cli, "restore", backup, "--home", str(home), "--json"], check=True)
    restored = Service(home)
    try:
        best = [*cli, "best", finished.id, "--format", "onnx", "-o", str(tmp_path / "after"), "--home", str(home)]
        subprocess.run(best, check=True)
        with restored.client() as other:
            assert other.front(finished) == client.front(finished)
            assert other.report(finished)["summary"] == client.report(finished)["summary"]
    finally:
        restored.stop()
    for path in (tmp_path / "before").rglob("*"):
        if path.is_file():
            assert (tmp_path / "after" / path.relative_to(tmp_path / "before")).read_bytes() == path.read_bytes()


def test_labels_outside_the_model_fail_the_job_in_words(
    client: paretune.Client, model_folder: Path, tmp_path: Path
) -> None:
    path = make_dataset(tmp_path / "labels.jsonl", rows=40)
    lines = path.read_text().splitlines()
    lines[7] = json.dumps({"text": "a good film", "label": 5})
    path.write_text("\n".join(lines))
    job = client.submit(client.upload_model(model_folder), client.upload_dataset(path), workload=WORKLOAD)
    with pytest.raises(paretune.ApiError) as failure:
        client.wait(job, timeout=60)
    assert "5" in str(failure.value)
    assert "8" in str(failure.value)  # the row


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"device": "no-such-device"}, 422),
        ({"goal": {"max_drop": 0.01, "max_latency_ms": 3.0}}, 422),
        ({"goal": {"max_latency_ms": -1.0}}, 422),
        ({"columns": {"text_column": "sentence"}}, 422),
        ({"columns": {"label_column": "klass"}}, 422),
    ],
)
def test_impossible_requests_are_refused_at_once(
    client: paretune.Client, finished: paretune.types.Job, change: dict[str, object], status: int
) -> None:
    body = {"model_id": finished.request["model_id"], "dataset_id": finished.request["dataset_id"], **change}
    with pytest.raises(paretune.ApiError) as failure:
        client.request("POST", "/v1/jobs", json=body)
    assert failure.value.status in {status, 404}
    assert failure.value.hint


def test_a_cancelled_job_keeps_what_it_found(client: paretune.Client, model_folder: Path, dataset_file: Path) -> None:
    model, data = client.upload_model(model_folder), client.upload_dataset(dataset_file)
    job = client.submit(model, data, budget_trials=50, budget_seconds=None, workload=WORKLOAD, strategy="direct")
    for event in client.watch(job):
        if event.kind == "trial" and event.payload["state"] == "complete":
            break
    client.cancel(job)
    ended = client.job(job)
    assert ended.state == "cancelled"
    assert any(trial["state"] == "complete" for trial in client.trials(job))
    assert client.front(job)["status"] == "provisional"
