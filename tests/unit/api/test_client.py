"""The SDK against a real server."""

import io
import json
import socket
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console

import paretune.client
import paretune.outage
import paretune.transport
import paretune.uploading
from api.health import endpoints as health
from api.models import service as models
from api.uploads import service as uploads
from infra.blobs import put_file
from infra.database.models import Event
from infra.database.models import Export
from infra.database.models import Job
from infra.events import append_event
from infra.uploads.filenames import SIZE_LIMITS
from paretune import ApiError
from paretune import Client
from paretune import JobFailedError
from paretune.cli.doctor import _health
from paretune.cli.watching import watch_job
from paretune.downloading import fetch
from paretune.outage import poll
from paretune.types import ExportFile
from search.lifecycle import cancel_job
from search.lifecycle import end_job
from tests.security import model_bytes
from tests.unit.api.conftest import ROWS
from tests.unit.api.conftest import World
from tests.unit.api.live import LiveService
from tests.unit.api.live import add_key
from tests.unit.api.live import run_server
from tests.unit.api.outcome import add_outcome


@pytest.fixture
def live(world: World) -> Iterator[LiveService]:
    with run_server(world) as url:
        yield LiveService(world, url, add_key(world))


@pytest.fixture
def sdk(live: LiveService) -> Iterator[Client]:
    with live.connect() as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    directory = tmp_path / "my-model"
    directory.mkdir()
    files = model_bytes.model_files(README__md=b"# hi") | {"training_args.json": b"{}", "optimizer.pt": b"x"}
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "dev.jsonl"
    path.write_bytes(ROWS)
    return path


def append_events(world: World, job_id: str, *kinds: str) -> None:
    for kind in kinds:
        with world.services.database.write_session() as session:
            session.add(Event(job_id=job_id, kind=kind, payload={"n": kind}))


def test_the_client_knows_the_files_that_the_service_accepts() -> None:
    assert set(paretune.uploading.MODEL_FILES) == set(SIZE_LIMITS)


def test_upload_submit_read_cancel(live: LiveService, sdk: Client, folder: Path, data: Path) -> None:
    seen: list[tuple[int, int]] = []
    model = sdk.upload_model(folder, progress=lambda sent, total: seen.append((sent, total)))
    assert (model.name, model.state) == ("my-model", "ready")
    assert seen[-1][0] == seen[-1][1] == sum(len(content) for content in model_bytes.model_files().values())
    dataset = sdk.upload_dataset(data)
    job = sdk.submit(model, dataset, max_drop=0.01, budget_seconds=60, workload={"sequence_length": 64})
    assert job.request["budget"] == {"seconds": 60.0, "trials": None}
    assert sdk.job(job).state == "queued"
    assert sdk.set_priority(job, 7).priority == sdk.job(job).priority == 7
    assert [item.id for item in sdk.jobs()] == [job.id]
    with live.world.services.database.write_session() as session:
        row = session.get(Job, job.id)
        assert row is not None
        add_outcome(session, row)
    assert sdk.best(job)["number"] == 2
    assert sdk.best(job, max_drop=0.1)["number"] == 3
    assert len(sdk.front(job)["points"]) == 2
    assert [trial["number"] for trial in sdk.trials(job)] == [0, 1, 2, 3]
    assert sdk.cancel(job).state == "cancelled"
    with pytest.raises(JobFailedError, match="cancelled"):
        sdk.wait(job)


def test_large_files_go_in_pieces_and_survive_a_lost_answer(
    live: LiveService, sdk: Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paretune.client, "LARGE_BYTES", 1000)
    monkeypatch.setattr(paretune.uploading, "PIECE_BYTES", 4096)
    send = sdk._transport.request
    failures = iter([False, True, False, True])

    def lose_some_answers(method: str, path: str, **options: object) -> object:
        answer = send(method, path, **options)  # type: ignore[arg-type]
        if method == "PATCH" and next(failures, False):
            raise ApiError("the connection was lost", status=0)
        return answer

    monkeypatch.setattr(sdk._transport, "request", lose_some_answers)
    assert sdk.upload_model(folder).state == "ready"
    assert next(failures, None) is None


def test_long_work_is_waited_for_and_done_once_when_its_answer_is_lost(
    live: LiveService, sdk: Client, folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = live.world.services
    allowing = services.settings.model_copy(update={"allow_server_paths": True})
    live.world.app.state.services = replace(services, settings=allowing)
    monkeypatch.setattr(paretune.client, "LARGE_BYTES", 100)
    sdk._transport.http.timeout = httpx.Timeout(1.0)
    done: list[str] = []
    for module, name in ((uploads, "copy_and_hash"), (models, "read_server_path")):
        monkeypatch.setattr(module, name, slowed(getattr(module, name), 1.5, done))
    send = sdk._transport.http.request
    lost: list[str] = []

    def lose_first_answers(method: str, path: str, **options: Any) -> httpx.Response:
        answer = send(method, path, **options)
        if path.endswith(("/complete", "/v1/models")) and path not in lost:
            lost.append(path)
            raise httpx.ReadError("the connection was lost")
        return answer

    monkeypatch.setattr(sdk._transport.http, "request", lose_first_answers)
    assert sdk.upload_dataset(data).rows == 40
    assert sdk.register_model(str(folder)).state == "ready"
    assert (len(lost), len(list(sdk.datasets())), len(list(sdk.models()))) == (2, 1, 1)
    assert done == ["copy_and_hash", "read_server_path"]
    monkeypatch.setattr(paretune.client, "LARGE_BYTES", 32 << 20)
    assert sdk.upload_model(folder).state == "ready"
    assert (len(lost), [model.state for model in sdk.models()]) == (3, ["ready", "ready"])


def test_time_in_which_the_service_works_is_no_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paretune.outage, "LONGEST_SECONDS", 0.2)
    monkeypatch.setattr(paretune.outage, "_FIRST_DELAY_SECONDS", 0.01)
    monkeypatch.setattr(paretune.outage, "_LONGEST_DELAY_SECONDS", 0.05)
    asked: list[str] = []

    def gateway(request: httpx.Request) -> httpx.Response:
        """A proxy that does not wait for the answer."""
        asked.append(request.url.path)
        time.sleep(0.15)
        return httpx.Response(200, json={"id": "m"}) if len(asked) == 5 else httpx.Response(504)

    transport = paretune.transport.Transport("http://service", None, httpx.MockTransport(gateway))
    assert paretune.uploading.complete(transport, "/v1/models/m") == {"id": "m"}
    assert asked == ["/v1/models/m/complete"] * 5
    asked.clear()
    monkeypatch.setattr(paretune.uploading, "LONG_WORK_SECONDS", 0.1)
    with pytest.raises(TimeoutError, match="/v1/models/m/complete is not done after"):
        paretune.uploading.complete(transport, "/v1/models/m")

    def absent(request: httpx.Request) -> httpx.Response:
        time.sleep(0.15)
        raise httpx.ConnectTimeout("timed out", request=request)

    monkeypatch.setattr(paretune.uploading, "LONG_WORK_SECONDS", 60.0)
    transport = paretune.transport.Transport("http://service", None, httpx.MockTransport(absent))
    with pytest.raises(ApiError, match="No Paretune service answers"):
        paretune.uploading.complete(transport, "/v1/models/m")


def slowed(function: Callable[..., Any], seconds: float, done: list[str]) -> Callable[..., Any]:
    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        done.append(function.__name__)
        return function(*arguments, **options)

    return slow


def test_a_service_that_is_gone_for_a_moment_after_it_was_there_is_asked_again(
    live: LiveService, sdk: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paretune.transport, "_FIRST_DELAY_SECONDS", 0.01)
    send = sdk._transport.http.request
    failures: list[Exception | None] = [httpx.ReadError("lost"), httpx.ConnectError("refused"), None]
    sent: list[str] = []

    def restart(method: str, path: str, **options: Any) -> httpx.Response:
        sent.append(method)
        failure = failures.pop(0)
        if isinstance(failure, httpx.ConnectError):
            raise failure
        answer = send(method, path, **options)
        if failure is not None:
            raise failure
        return answer

    monkeypatch.setattr(sdk._transport.http, "request", restart)
    made = sdk.add_device("once", "onnxruntime")
    assert (made.name, len(sent)) == ("once", 3)
    failures[:] = [httpx.ConnectError("refused")]
    with pytest.raises(ApiError, match="No Paretune service answers"):
        sdk.devices()  # it may never have been there: said at once
    assert len(sent) == 4


def test_a_service_that_still_works_is_not_called_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paretune.transport, "_FIRST_DELAY_SECONDS", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as silent, Client(f"http://127.0.0.1:{silent.getsockname()[1]}") as sdk:
        sdk._transport.http.timeout = httpx.Timeout(0.05)
        with pytest.raises(ApiError, match="may still be working") as caught:
            sdk.cancel("job")
        assert (caught.value.code, caught.value.status) == ("no-answer", 0)
        assert "before you ask again" in caught.value.hint
        with pytest.raises(ApiError, match="may still be working") as caught:
            sdk.job("job")
        assert "safe" in caught.value.hint


def test_a_pickle_is_refused_before_anything_is_sent(sdk: Client, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ApiError, match="pickle") as caught:
        sdk.upload_model(tmp_path)
    assert "save_pretrained" in caught.value.hint
    assert list(sdk.models()) == []


def test_refusals_carry_the_problem(sdk: Client, folder: Path, data: Path) -> None:
    model, dataset = sdk.upload_model(folder), sdk.upload_dataset(data)
    with pytest.raises(ApiError) as caught:
        sdk.submit(model, dataset, device="moon")
    error = caught.value
    assert (error.status, error.code) == (422, "invalid-input")
    assert "local-cpu" in error.hint
    assert error.errors[0]["field"] == "device"
    assert error.request_id


def test_an_absent_service_is_said_to_be_absent() -> None:
    with pytest.raises(ApiError, match="No Paretune service answers") as caught, Client("http://127.0.0.1:9") as sdk:
        sdk.devices()
    assert "paretune up" in caught.value.hint


def test_watching_gets_every_event_once_in_order_and_ends_with_the_job(
    live: LiveService, sdk: Client, folder: Path, data: Path
) -> None:
    job = sdk.submit(sdk.upload_model(folder), sdk.upload_dataset(data))
    append_events(live.world, job.id, "notice", "stage")

    def work() -> None:
        for _ in range(3):
            time.sleep(0.3)
            append_events(live.world, job.id, "trial")
        with live.world.services.database.write_session() as session:
            row = session.get(Job, job.id)
            assert row is not None
            end_job(session, row, "succeeded")

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    events = list(sdk.watch(job))
    worker.join()
    assert [event.kind for event in events] == ["state", "notice", "stage", "trial", "trial", "trial", "state"]
    assert [event.id for event in events] == sorted({event.id for event in events})
    assert [event.id for event in sdk.watch(job, after=events[4].id)] == [event.id for event in events[5:]]


def test_progress_events_of_one_moment_are_sent_as_one(
    live: LiveService, sdk: Client, folder: Path, data: Path
) -> None:
    job = sdk.submit(sdk.upload_model(folder), sdk.upload_dataset(data))
    with live.world.services.database.write_session() as session:
        for percent in range(50):
            append_event(session, job.id, "progress", {"percent": percent})
        row = session.get(Job, job.id)
        assert row is not None
        cancel_job(session, row)
    progress = [event.payload for event in sdk.watch(job) if event.kind == "progress"]
    assert progress == [{"percent": 49}]


def test_watching_survives_a_restart_of_the_server(world: World, folder: Path, data: Path) -> None:
    key = add_key(world)
    received: list[int] = []
    with run_server(world) as url:
        port = int(url.rpartition(":")[2])
        sdk = Client(url, key)
        job = sdk.submit(sdk.upload_model(folder), sdk.upload_dataset(data))
        watcher = threading.Thread(target=lambda: received.extend(event.id for event in sdk.watch(job)), daemon=True)
        watcher.start()
        append_events(world, job.id, "notice")
        while len(received) < 2:
            time.sleep(0.05)
        stopping = time.monotonic()
        world.app.state.events.close()  # what the signal handler does
    assert time.monotonic() - stopping < 8
    world.app.state.events = type(world.app.state.events)(world.services.database)
    append_events(world, job.id, "trial")
    with run_server(world, port):
        with world.services.database.write_session() as session:
            row = session.get(Job, job.id)
            assert row is not None
            cancel_job(session, row)
        watcher.join(15)
        assert not watcher.is_alive()
    assert len(received) == len(set(received)) == 4
    assert received == sorted(received)


def test_waiting_and_downloading_survive_a_restart_of_the_server(
    world: World, folder: Path, data: Path, tmp_path: Path
) -> None:
    content = b"graph" * 1000
    services = world.services
    ref = put_file(services.database, services.store, io.BytesIO(content))
    with run_server(world) as url, Client(url, add_key(world)) as sdk:
        job = sdk.submit(sdk.upload_model(folder), sdk.upload_dataset(data))
        with services.database.write_session() as session:
            add_outcome(session, session.get_one(Job, job.id))
        body = {"format": "onnx", "trial": None, "goal": {"max_drop": 0.01}}
        export_id = sdk.request("POST", f"/v1/jobs/{job.id}/exports", json=body)["id"]
    where = f"/v1/exports/{export_id}"
    file = ExportFile(name="model.onnx", sha256=ref.sha256, size=ref.size, url=f"{where}/files/model.onnx")
    with Client(url, sdk.config.api_key) as again, ThreadPoolExecutor(4) as pool:  # nothing listens there now
        waiting = pool.submit(again.wait, job)
        polling = pool.submit(
            poll,
            lambda: again.request("GET", where),
            lambda export: export["state"] == "ready",
            what="export",
            url=url,
            pause=0.1,
            timeout=60.0,
        )
        fetching = pool.submit(fetch, again._transport, file, tmp_path / "out")
        watching = pool.submit(watch_job, again, job.id, Console(file=io.StringIO(), force_terminal=True))
        time.sleep(1.0)
        assert not any(future.done() for future in (waiting, polling, fetching, watching))
        with services.database.write_session() as session:
            end_job(session, session.get_one(Job, job.id), "succeeded")
            export = session.get_one(Export, export_id)
            export.state = "ready"
            export.files = [{"name": file.name, "sha256": ref.sha256, "size": ref.size}]
        world.app.state.events = type(world.app.state.events)(services.database)
        with run_server(world, int(url.rpartition(":")[2])):
            assert waiting.result(30).state == "succeeded"
            assert polling.result(30)["id"] == export_id
            assert fetching.result(30).read_bytes() == content
            assert watching.result(30).state == "succeeded"


def test_waiting_ends_when_the_service_stays_away_or_refuses(
    sdk: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ApiError) as refused:
        sdk.wait("no-such-job")
    assert refused.value.status == 404
    with Client("http://127.0.0.1:9") as absent:
        with pytest.raises(TimeoutError, match="job x is not done after"):
            absent.wait("x", timeout=0.2)
        monkeypatch.setattr(paretune.outage, "LONGEST_SECONDS", 0.3)
        with pytest.raises(ApiError, match="No Paretune service answers"):
            absent.wait("x")
        file = ExportFile(name="f", sha256="0" * 64, size=1, url="/v1/f")
        with pytest.raises(ApiError, match="No Paretune service answers"):
            fetch(absent._transport, file, tmp_path)
    with Client("nonsense://x") as mistyped, pytest.raises(ApiError):
        mistyped.wait("x", timeout=3600)  # at once


def test_doctor_says_which_part_of_the_service_fails(
    live: LiveService, sdk: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "LEAST_FREE_BYTES", 1 << 62)
    found = {finding.name: finding for finding in _health(sdk)}
    assert [name for name, finding in found.items() if finding.status == "problem"] == ["service disk"]
    assert "MiB are free" in found["service disk"].detail
    assert found["service database"].status == "ok"


def test_download_checks_the_hash_and_refuses_unsafe_names(
    live: LiveService, sdk: Client, folder: Path, data: Path, tmp_path: Path
) -> None:
    job = sdk.submit(sdk.upload_model(folder), sdk.upload_dataset(data))
    services = live.world.services
    with services.database.write_session() as session:
        row = session.get(Job, job.id)
        assert row is not None
        add_outcome(session, row)
    content = b"graph" * 1000
    ref = put_file(services.database, services.store, io.BytesIO(content))

    def finish(files: list[dict[str, object]]) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with services.database.write_session() as session:
                export = session.query(Export).first()
                if export is not None:
                    export.state, export.files = "ready", files
                    return
            time.sleep(0.05)

    good = {"name": "onnx/model.onnx", "sha256": ref.sha256, "size": ref.size}
    worker = threading.Thread(target=finish, args=([good],), daemon=True)
    worker.start()
    paths = sdk.download(job, "onnx", tmp_path / "out")
    worker.join()
    assert [path.relative_to(tmp_path / "out").as_posix() for path in paths] == ["onnx/model.onnx"]
    assert paths[0].read_bytes() == content

    finish([good | {"name": "../outside"}])
    with pytest.raises(ApiError, match="unsafe"):
        sdk.download(job, "onnx", tmp_path / "out")
    assert not (tmp_path / "outside").exists()


def test_configuration_is_found_by_itself(live: LiveService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "url").write_text(live.url + "\n")
    (home / "api-key").write_text(live.key + "\n")
    for name in ("PARETUNE_URL", "PARETUNE_API_KEY", "PARETUNE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with Client(home=home) as sdk:
        assert [device.name for device in sdk.devices()] == ["local-cpu"]
    monkeypatch.setenv("PARETUNE_HOME", str(home))
    with Client() as sdk:
        assert sdk.config.api_key_source == str(home / "api-key")
    monkeypatch.setenv("PARETUNE_API_KEY", "wrong.key")
    with Client() as sdk, pytest.raises(ApiError) as caught:
        sdk.devices()
    assert caught.value.status == 401
    assert json.dumps(caught.value.to_dict())
