"""The command line against a real server."""

import json
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlmodel import select
from typer.testing import CliRunner
from typer.testing import Result

from infra.database.models import Device
from infra.database.models import Export
from infra.database.models import Job
from paretune.cli.app import app
from paretune.cli.durations import format_duration
from paretune.cli.durations import parse_duration
from search.lifecycle import end_job
from tests.security import model_bytes
from tests.unit.api.conftest import ROWS
from tests.unit.api.conftest import World
from tests.unit.api.live import add_key
from tests.unit.api.live import run_server
from tests.unit.api.outcome import EMBEDDING_QUALITY
from tests.unit.api.outcome import add_outcome

Run = Callable[..., Result]


@pytest.fixture
def run(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Runs a command against a live service."""
    with run_server(world) as url:
        monkeypatch.setenv("PARETUNE_URL", url)
        monkeypatch.setenv("PARETUNE_API_KEY", add_key(world))
        monkeypatch.setenv("COLUMNS", "200")
        runner = CliRunner()
        yield lambda *arguments: runner.invoke(app, list(map(str, arguments)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = tmp_path / "my-model"
    directory.mkdir()
    for name, content in model_bytes.model_files().items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    path.write_bytes(ROWS)
    return path


def parsed(result: Result) -> dict[str, Any]:
    """The one JSON object that a command printed."""
    body: dict[str, Any] = json.loads(result.stdout)
    return body


def write_outcome(world: World, job_id: str, *, end: str | None = None) -> None:
    with world.services.database.write_session() as session:
        job = session.get(Job, job_id)
        assert job is not None
        add_outcome(session, job)
        if end:
            end_job(session, job, end)


def test_submit_watch_best(world: World, run: Run, folder: Path, data: Path) -> None:
    submitted = run("submit", folder, "--data", data, "--max-drop", "0.01", "--budget", "10m", "--json")
    assert submitted.exit_code == 0, submitted.output
    job = parsed(submitted)
    assert job["request"]["goal"]["max_drop"] == 0.01
    assert job["request"]["budget"]["seconds"] == 600
    assert [item["id"] for item in parsed(run("jobs", "--json"))["items"]] == [job["id"]]
    assert job["id"] in run("jobs").output
    early = run("best", job["id"])
    assert early.exit_code == 2
    assert "What to do:" in early.output
    write_outcome(world, job["id"], end="succeeded")
    watched = run("watch", "latest")
    assert watched.exit_code == 0
    assert "3.33" in watched.output
    assert "int8_one_liner" in watched.output
    best = parsed(run("best", "latest", "--json"))
    assert (best["number"], best["files"]) == (2, [])
    assert best["recipe"]["layers"]
    assert parsed(run("best", job["id"], "--max-drop", "0.1", "--json"))["number"] == 3
    assert parsed(run("watch", job["id"], "--json"))["state"] == "succeeded"


def test_best_tells_what_is_left_of_the_similarities_of_embeddings(
    world: World, run: Run, folder: Path, data: Path
) -> None:
    job = parsed(run("submit", folder, "--data", data, "--max-drop", "0.01", "--json"))
    with world.services.database.write_session() as session:
        for trial in add_outcome(session, session.get_one(Job, job["id"])):
            trial.quality = (trial.quality or {}) | EMBEDDING_QUALITY
    output = " ".join(run("best", job["id"]).output.split())
    assert "neighbours" in output
    assert "rank corr." in output
    assert "0.907" in output
    assert "mean cosine" in output
    assert "90.7% of the nearest neighbours kept, rank correlation of similarities 0.9917" in output


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_an_end_without_success_is_exit_code_1_and_keeps_what_was_found(
    world: World, run: Run, folder: Path, data: Path, end: str
) -> None:
    job = parsed(run("submit", folder, "--data", data, "--json"))
    write_outcome(world, job["id"], end=end)
    watched = run("watch", job["id"])
    assert watched.exit_code == 1
    assert "int8_one_liner" in watched.output
    as_json = run("watch", job["id"], "--json")
    assert (as_json.exit_code, parsed(as_json)["state"]) == (1, end)


def test_all_options_of_submit_reach_the_service(run: Run, folder: Path, data: Path) -> None:
    options = "--text-column text --label-column label --task sequence-classification --device local-cpu --trials 5"
    options += " --batch 2 --sequence-length 64 --threads 3 --kinds heads,ffn --strategy random --sampler gp --seed 7"
    result = run("submit", folder, "--data", data, "--calibration", data, *options.split(), "--json", "--name", "n")
    request = parsed(result)["request"]
    assert request["workload"] == {"batch": 2, "sequence_length": 64, "threads": 3}
    assert request["space"]["kinds"] == ["heads", "ffn"]
    assert (request["strategy"], request["sampler"], request["seed"], request["name"]) == ("random", "gp", 7, "n")
    assert request["budget"] == {"seconds": None, "trials": 5}
    assert request["calibration_id"] not in (None, request["dataset_id"])


def test_again_asks_for_the_same_but_for_what_is_given(run: Run, folder: Path, data: Path) -> None:
    first = parsed(
        run(
            "submit",
            folder,
            "--data",
            data,
            "--max-drop",
            "0.01",
            "--trials",
            "5",
            "--seed",
            "3",
            "--name",
            "a",
            "--json",
        )
    )
    second = parsed(run("again", "latest", "--budget", "2m", "--json"))
    changed = {"budget": {"seconds": 120.0, "trials": 5}, "name": None}
    assert second["id"] != first["id"]
    assert second["request"] == first["request"] | changed
    third = parsed(run("again", first["id"], "--max-latency", "3", "--json"))
    assert third["request"]["goal"] == {"max_drop": None, "max_latency_ms": 3.0, "max_size_mb": None}
    assert third["request"]["seed"] == 3
    refused = run("again", first["id"], "--device", "toaster")
    assert refused.exit_code == 2
    assert "toaster" in refused.output


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("--recover 20m", (1200, "race", True)),
        ("--recover 90s --recover-mode race", (90, "race", True)),
        ("--recover 20m --recover-mode gradual --ignore-labels", (1200, "gradual", False)),
    ],
)
def test_training_is_asked_for(run: Run, folder: Path, data: Path, options: str, expected: tuple) -> None:
    job = parsed(run("submit", folder, "--data", data, "--train", data, *options.split(), "--json"))
    (listed,) = (item for item in parsed(run("jobs", "--json"))["items"] if item["id"] == job["id"])
    recover = listed["request"]["recover"]
    assert (recover["seconds"], recover["mode"], recover["use_labels"]) == expected


BRACKETS = "run [/tmp/x] [red] :bug:"


def test_names_with_brackets_are_shown_as_they_are(world: World, run: Run, folder: Path, data: Path) -> None:
    submitted = run("submit", folder, "--data", data, "--name", BRACKETS)
    assert submitted.exit_code == 0, submitted.output
    assert run("keys", "add", BRACKETS).exit_code == 0
    job = parsed(run("jobs", "--json"))["items"][0]["id"]
    with world.services.database.write_session() as session:
        for trial in add_outcome(session, session.get_one(Job, job)):
            trial.facts = {"name": BRACKETS}
        end_job(session, session.get_one(Job, job), "succeeded")
        device = session.exec(select(Device).where(Device.name == "local-cpu")).one()
        device.capabilities = {"available": False, "reason": BRACKETS}
    for command in (("jobs",), ("keys",), ("devices",), ("best", job), ("best", job, "--trial", "3"), ("watch", job)):
        shown = run(*command)
        assert shown.exit_code == 0, (command, shown.output, shown.exception)
        assert BRACKETS in shown.output, command


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--budget 10min", "'--budget': '10min' is not a duration"),
        ("--budget 0s", "'--budget': '0s' is not more than 0s and at most 7d"),
        ("--recover 10min", "'--recover': '10min' is not a duration"),
        ("--recover 8d", "'--recover': '8d' is not more than 0s and at most 7d"),
        ("--ignore-labels", "--ignore-labels: it needs a time for training: give --recover 20m"),
        ("--recover-mode race", "--recover 20m"),
        ("--recover 1m --recover-mode walk", "'--recover-mode': Value error, 'walk' is not one of 'race', 'gradual'"),
        ("--train DATA", "--recover 20m"),
        ("--max-drop 0.1 --max-latency 5", "one of --max-drop and --max-latency"),
        ("--max-latency 0", "--max-latency: give more than 0"),
        ("--max-drop 7", "'--max-drop': Input should be less than or equal to 1"),
        ("--kinds heads,toes", "--kinds: 'toes' is not one of them; choose from heads, ffn, depth"),
        ("--formats int9", "--formats: 'int9' is not one of them; choose from int8_dynamic"),
        ("--objective speed", "'speed' is not one of 'p50', 'p90'"),
        ("--task poetry", "'poetry' is not one of 'sequence-classification', 'embedding'"),
        ("--sequence-length 9000", "'--sequence-length': Input should be less than or equal to 8192"),
        ("--calibration missing.jsonl", "missing.jsonl is not a file"),
    ],
)
def test_what_can_be_refused_here_is_refused_before_anything_is_uploaded(
    monkeypatch: pytest.MonkeyPatch, folder: Path, data: Path, options: str, words: str
) -> None:
    monkeypatch.setenv("PARETUNE_URL", "http://127.0.0.1:9")  # nobody there: an upload would be exit code 1
    arguments = [*options.replace("DATA", str(data)).split(), "--data", str(data)]
    result = CliRunner().invoke(app, ["submit", str(folder), *arguments], env={"COLUMNS": "200"})
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


def test_uploaded_things_can_be_named_by_id(run: Run, folder: Path, data: Path) -> None:
    first = parsed(run("submit", folder, "--data", data, "--json"))["request"]
    again = parsed(run("submit", first["model_id"], "--data", first["dataset_id"], "--json"))["request"]
    assert (again["model_id"], again["dataset_id"]) == (first["model_id"], first["dataset_id"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "moon"], "Registered devices: local-cpu"),
        (["--text-column", "sentence"], "no column 'sentence'"),
        (["--text-column", "sentence"], "It has: text, label. Name the right one in --text-column."),
        (["--label-column", "stars"], "no column 'stars'"),
        (["--max-latency", "0.0001"], "starting any graph takes longer"),
    ],
)
def test_what_cannot_work_says_what_to_do(run: Run, folder: Path, data: Path, arguments: list[str], words: str) -> None:
    shown = run("submit", folder, "--data", data, *arguments)
    assert shown.exit_code == 2
    assert words in " ".join(shown.output.split())
    assert "What to do:" in shown.output
    error = parsed(run("submit", folder, "--data", data, *arguments, "--json"))["error"]
    assert error["status"] == 422
    assert error["hint"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["watch", "0199"], "`paretune jobs`, or GET /v1/jobs, lists"),
        (["keys", "revoke", "nobody"], "`paretune keys`"),
        (["jobs", "--url", "127.0.0.1:8765"], "with the protocol and the port, such as http://127.0.0.1:8765"),
        (["submit", "./nowhere", "--data", "d.csv"], "or the id of an uploaded model"),
        (["submit", ".", "--data", "d.csv", "--budget", "10"], "write 10s, 10m or 10h"),
    ],
)
def test_hints_name_what_can_be_typed(run: Run, arguments: list[str], words: str, data: Path) -> None:
    shown = run(*[str(data) if part == "d.csv" else part for part in arguments])
    assert shown.exit_code != 0
    assert words in " ".join(shown.output.split())


def test_a_damaged_model_is_explained(run: Run, folder: Path, data: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    result = run("submit", folder, "--data", data)
    assert result.exit_code == 2
    assert "truncated" in result.output
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert "pickle" in run("submit", folder, "--data", data).output


def test_best_downloads_into_a_folder(world: World, run: Run, folder: Path, data: Path, tmp_path: Path) -> None:
    job = parsed(run("submit", folder, "--data", data, "--json"))
    write_outcome(world, job["id"])
    services = world.services
    source = tmp_path / "graph"
    source.write_bytes(b"graph" * 100)
    ref = services.store.put(source)
    with services.database.write_session() as session:
        from infra.blobs import record_blob
        from infra.database.models import Trial

        record_blob(session, services.store, ref)
        trial = session.exec(select(Trial).where(Trial.job_id == job["id"], Trial.number == 2)).one()
        files = [{"name": "model.onnx", "sha256": ref.sha256, "size": ref.size}]
        session.add(Export(job_id=job["id"], trial_id=trial.id, format="onnx", state="ready", files=files))
    out = tmp_path / "out"
    result = run("best", job["id"], "--max-drop", "0.01", "--format", "onnx", "-o", out, "--json")
    assert parsed(result)["files"] == [{"path": str(out / "model.onnx"), "size": 500}]
    assert (out / "model.onnx").read_bytes() == source.read_bytes()


def test_reports_are_written_or_printed(
    world: World, run: Run, folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = parsed(run("submit", folder, "--data", data, "--json"))["id"]
    write_outcome(world, job)
    assert run("report", "latest").exit_code == 0
    assert f"Job {job}" in (tmp_path / f"report-{job}.html").read_text()
    assert len(parsed(run("report", job, "--json"))["front"]["points"]) == 2
    assert parsed(run("report", job, "--trial", "2", "--json"))["number"] == 2
    assert run("report", job, "-o", "new/front.png").exit_code == 0
    assert (tmp_path / "new/front.png").read_bytes().startswith(b"\x89PNG")
    several = run("report", job, "--trial", "2", "--html", "--png", "--json", "-o", "reports")
    base = tmp_path / "reports" / f"report-{job}-trial-2"
    sizes = {name: Path(f"{base}.{name}").stat().st_size for name in ("html", "png", "json")}
    assert [file["size"] for file in parsed(several)["files"]] == list(sizes.values())
    assert json.loads(Path(f"{base}.json").read_text())["number"] == 2
    assert "trial-2" in Path(f"{base}.html").read_text()
    for wrong in (
        ["--trial", "77"],
        ["--trial", "0", "--png"],
        ["--html", "--png", "-o", "a.html"],
        ["--png", "--json"],
    ):
        assert run("report", job, *wrong).exit_code == 2
    assert not (tmp_path / "a.html").exists()


def test_devices_and_keys(world: World, run: Run) -> None:
    assert "local-cpu" in run("devices").output
    added = run("devices", "add", "four", "--profiler", "onnxruntime", "--option", "affinity=[0,1]", "--json")
    assert parsed(added)["options"] == {"affinity": [0, 1]}
    assert run("devices").output.count("no worker has looked at it yet") == 2
    with world.services.database.write_session() as session:
        row = session.exec(select(Device).where(Device.name == "four")).one()
        row.capabilities = {"available": True, "formats": ["onnx"]}
        row.facts = {"cpu": "A processor", "gpu": "A GPU"}
    (line,) = (line for line in run("devices").output.splitlines() if "four" in line)
    assert ("available" in line, "onnx" in line, "A GPU" in line) == (True, True, True)
    assert [item["name"] for item in parsed(run("devices", "--json"))["items"]] == ["four", "local-cpu"]
    key = parsed(run("keys", "add", "ci", "--scope", "read", "--json"))
    assert key["scopes"] == ["read"]
    listed = run("keys", "--json")
    assert key["key"].partition(".")[2] not in listed.output
    limited = parsed(run("keys", "quotas", key["id"], "--max-workers", "2", "--max-priority", "0", "--json"))
    assert (limited["max_workers"], limited["max_priority"]) == (2, 0)
    shown = run("keys", "quotas", key["id"], "--clear", "--max-active-jobs", "7").output
    assert "max_active_jobs: 7, max_workers: -, max_priority: -" in shown
    assert run("keys", "rotate", key["id"]).exit_code == 0
    assert run("keys", "revoke", key["id"]).exit_code == 0
    assert run("devices", "add", "x", "--profiler", "abacus").exit_code == 2


def test_doctor_looks_at_machine_and_service(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_HOME", str(world.services.settings.home))
    fine = parsed(run("doctor", "--json"))
    names = {check["name"] for check in fine["checks"]}
    assert {"python", "disk", "database", "broker", "sandbox: no network", "profiler onnxruntime"} <= names
    assert {"service", "service database", "service store", "key", "device local-cpu"} <= names
    assert [check for check in fine["checks"] if check["status"] == "problem"] == []
    assert fine["ok"]
    world.services.settings.api_key_file.write_text("pt_0.secret")
    world.services.settings.api_key_file.chmod(0o644)
    leaky = run("doctor")
    assert leaky.exit_code == 1
    assert "chmod 600" in leaky.output
    monkeypatch.setenv("PARETUNE_URL", "http://127.0.0.1:9")
    broken = run("doctor")
    assert broken.exit_code == 1
    assert "paretune up" in broken.output


def test_an_absent_service_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_URL", "http://127.0.0.1:9")
    result = CliRunner().invoke(app, ["jobs"])
    assert result.exit_code == 1
    assert "paretune up" in result.output
    assert "Traceback" not in result.output


def test_usage_mistakes_are_exit_code_2() -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["submit"]).exit_code == 2
    assert runner.invoke(app, ["best", "JOB", "--max-drop", "7"]).exit_code == 2
    assert runner.invoke(app, ["best", "JOB", "--format", "exe"]).exit_code == 2
    for goal in ("--max-drop", "--max-latency", "--max-size"):
        assert runner.invoke(app, ["best", "JOB", "--trial", "3", goal, "0.01"]).exit_code == 2
    assert runner.invoke(app, ["again", "JOB", "--budget", "10min"]).exit_code == 2
    for command in (
        "up",
        "submit",
        "watch",
        "jobs",
        "best",
        "report",
        "cancel",
        "priority",
        "devices",
        "doctor",
        "keys",
        "backup",
        "restore",
    ):
        shown = runner.invoke(app, [command, "--help"])
        assert shown.exit_code == 0
    assert "Examples" in runner.invoke(app, ["submit", "--help"]).output


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h30m", 5400), ("0.5h", 1800), ("2d", 172800)]
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10x", "10m5", "-5", "1e3", "ten", "10", "1.5"])
def test_what_is_not_a_duration(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


def test_a_duration_without_a_unit_says_which_there_are() -> None:
    with pytest.raises(typer.BadParameter, match="write 10s, 10m or 10h"):
        parse_duration("10")


def test_durations_are_shown_in_two_units() -> None:
    assert [format_duration(value) for value in (8, 75, 3900)] == ["8s", "1m 15s", "1h 05m"]
