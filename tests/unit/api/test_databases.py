"""The same API on SQLite and PostgreSQL, with requests at the same time."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from api.app import create_app
from infra.database.migrate import upgrade
from infra.database.models import Device
from infra.settings import load_settings
from tests.helpers.databases import database_url
from tests.helpers.databases import postgresql_server
from tests.helpers.databases import postgresql_url
from tests.security.model_bytes import model_files
from tests.unit.api.conftest import ROWS
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.conftest import upload_dataset
from tests.unit.api.conftest import upload_model
from tests.unit.api.test_jobs import write_outcome

__all__ = ["database_url", "postgresql_server", "postgresql_url"]


@pytest.fixture
def shared(tmp_path: Path, database_url: str, empty_database: Path) -> Iterator[World]:
    home = tmp_path / "home"
    home.mkdir()
    settings = load_settings(home=home, database_url=database_url, allowed_hosts=("testserver",))
    if database_url.startswith("sqlite"):
        shutil.copy(empty_database, database_url.removeprefix("sqlite:///"))
    else:
        upgrade(settings)
    app = create_app(settings)
    with ExitStack() as stack:
        world = World(app, app.state.services, stack)
        with world.services.database.write_session() as session:
            session.add(Device(name="local-cpu", profiler="onnxruntime"))
        yield world
        world.services.database.dispose()


def test_from_upload_to_deletion(shared: World) -> None:
    client = shared.client()
    body = submit(client, goal={"max_drop": 0.01})["request"]
    for _ in range(4):
        assert client.post("/v1/jobs", json=body).status_code == 202
    first = client.get("/v1/jobs", params={"limit": 3}).json()
    second = client.get("/v1/jobs", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    ids = [job["id"] for job in first["items"] + second["items"]]
    assert (len(ids), len(set(ids)), second["next_cursor"]) == (5, 5, None)
    path = f"/v1/jobs/{ids[0]}"
    write_outcome(shared, ids[0])
    assert client.get(path).json()["best"]["trial"] == 2
    assert client.post(f"{path}/exports", json={}).status_code == 202
    assert client.post(f"{path}/exports", json={}).status_code == 200
    assert client.post(f"{path}/cancel").json()["state"] == "cancelled"
    assert "event: end" in client.get(f"{path}/events").text
    assert client.delete(path).status_code == 204
    assert 'paretune_jobs{state="queued"} 4.0' in client.get("/metrics").text


def test_the_same_request_at_the_same_time_creates_once(shared: World) -> None:
    client = shared.client()
    body = {"model_id": upload_model(client)["id"], "dataset_id": upload_dataset(client)["id"]}
    headers = {"Idempotency-Key": "together"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: client.post("/v1/jobs", json=body, headers=headers), range(8)))
    assert [answer.status_code for answer in answers] == [202] * 8
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(client.get("/v1/jobs").json()["items"]) == 1


def test_of_pieces_at_the_same_time_one_is_taken(shared: World) -> None:
    client = shared.client()
    path = client.post("/v1/uploads", json={"kind": "dataset", "name": "d.csv", "length": 400}).headers["location"]

    def send(index: int) -> int:
        piece = bytes([65 + index]) * 100
        return client.patch(path, content=piece, headers={"Upload-Offset": "0"}).status_code

    with ThreadPoolExecutor(4) as pool:
        statuses = sorted(pool.map(send, range(4)))
    assert statuses == [204, 409, 409, 409]
    assert client.get(path).json()["offset"] == 100


def test_an_upload_completed_by_many_requests_at_once_becomes_one_dataset(shared: World) -> None:
    client = shared.client()
    announced = {"kind": "dataset", "name": "dev.jsonl", "length": len(ROWS)}
    path = client.post("/v1/uploads", json=announced).headers["location"]
    assert client.patch(path, content=ROWS, headers={"Upload-Offset": "0"}).status_code == 204
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post(f"{path}/complete"), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert len({answer.json()["dataset"]["id"] for answer in answers}) == 1
    assert client.post(f"{path}/complete").json() == answers[0].json()
    assert len(client.get("/v1/datasets").json()["items"]) == 1


def test_a_model_completed_by_many_requests_at_once_is_the_same_to_all(shared: World) -> None:
    client = shared.client()
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    for name, content in model_files().items():
        client.put(f"/v1/models/{model_id}/files/{name}", content=content)
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post(f"/v1/models/{model_id}/complete"), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [answer.json() for answer in answers] == [client.get(f"/v1/models/{model_id}").json()] * 6


def test_an_export_asked_for_by_many_is_made_once(shared: World) -> None:
    client = shared.client()
    job = submit(client)
    write_outcome(shared, job["id"])
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: client.post(f"/v1/jobs/{job['id']}/exports", json={}), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [202]
    assert len(client.get(f"/v1/jobs/{job['id']}/exports").json()["items"]) == 1


def test_the_training_text_of_a_job_stays(shared: World) -> None:
    client = shared.client()
    train = upload_dataset(client)["id"]
    job = submit(client, train_id=train, recover={"seconds": 60})
    assert client.delete(f"/v1/datasets/{train}").status_code == 409
    assert client.post(f"/v1/jobs/{job['id']}/cancel").json()["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{job['id']}").status_code == 204
    assert client.delete(f"/v1/datasets/{train}").status_code == 204
