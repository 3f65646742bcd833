"""No operation of the API shows or changes what belongs to another key, whatever is added to the API later."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from infra.database.models import Export
from infra.database.models import Job
from infra.database.models import Trial
from tests.security.model_bytes import model_files
from tests.unit.api.conftest import ROWS
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.outcome import add_outcome

SHARED = {"/v1/devices/{name}", "/v1/keys/{key_id}", "/v1/keys/{key_id}/rotate"}
"""Devices are everybody's to use; keys and the audit log are the administrators'."""
LISTS_OF_ADMINISTRATORS = {"/v1/keys", "/v1/audit", "/v1/devices"}


@pytest.fixture
def ids(world: World, client: TestClient) -> dict[str, Any]:
    """One of everything that belongs to the first key, with its ids by the names of path parameters."""
    job = submit(client)
    with world.services.database.write_session() as session:
        row = session.get_one(Job, job["id"])
        add_outcome(session, row)
        trial = session.exec(select(Trial).where(Trial.job_id == row.id, Trial.number == 2)).one()
        files = [{"name": "model.onnx", "sha256": "0" * 64, "size": 0}]
        export = Export(job_id=row.id, trial_id=trial.id, format="onnx", state="ready", files=files)
        session.add(export)
    upload = client.post("/v1/uploads", json={"kind": "dataset", "name": "d.csv", "length": 3}).json()
    return {
        "job_id": job["id"],
        "model_id": client.post("/v1/models", json={"name": "open"}).json()["id"],
        "dataset_id": job["request"]["dataset_id"],
        "upload_id": upload["id"],
        "export_id": export.id,
        "number": 2,
        "name": "model.onnx",
        "request": job["request"],
    }


def operations(world: World) -> list[tuple[str, str]]:
    return [(method, path) for path, methods in world.app.openapi()["paths"].items() for method in methods]


def call(client: TestClient, method: str, path: str, ids: dict[str, Any]) -> tuple[int, str]:
    """Send a request that is right but for its key."""
    bodies: dict[str, dict[str, Any]] = {
        "/v1/models/{model_id}/files/{name}": {"content": model_files()["config.json"]},
        "/v1/uploads/{upload_id}": {"content": b"a,b", "headers": {"Upload-Offset": "0"}},
        "/v1/jobs/{job_id}": {"json": {"priority": 9}},
        "/v1/jobs/{job_id}/exports": {"json": {}},
        "/v1/uploads/{upload_id}/complete": {"json": {}},
    }
    known = ids | ({"name": "config.json"} if "/models/" in path else {})
    body = bodies.get(path, {}) if method in {"put", "post", "patch"} else {}
    answer = client.request(method.upper(), path.format(**known), **body)
    return answer.status_code, answer.text


def test_nothing_of_another_key_is_found_by_its_id(
    world: World, client: TestClient, stranger: TestClient, ids: dict[str, Any]
) -> None:
    owned = [(method, path) for method, path in operations(world) if "{" in path and path not in SHARED]
    assert len(owned) > 20
    wrong = []
    for method, path in owned:
        status, text = call(stranger, method, path, ids)
        if status != 404:
            wrong.append((method, path, status, text[:200]))
    assert wrong == []
    # Nothing was changed, and the owner does find all of it: the requests were right.
    assert client.get(f"/v1/jobs/{ids['job_id']}").json()["state"] == "running"
    reads = [(method, path) for method, path in owned if method == "get" and not path.endswith(("/events", "{name}"))]
    assert len(reads) > 8
    found = {path: call(client, method, path, ids)[0] for method, path in reads}
    assert set(found.values()) == {200}, found


def test_nothing_of_another_key_is_in_a_list(world: World, stranger: TestClient, ids: dict[str, Any]) -> None:
    lists = [path for method, path in operations(world) if method == "get" and re.fullmatch(r"/v1/\w+", path)]
    assert {"/v1/models", "/v1/datasets", "/v1/jobs"} <= set(lists)
    for path in set(lists) - LISTS_OF_ADMINISTRATORS:
        assert stranger.get(path).json()["items"] == [], path
    submitter = world.client("read", "submit", name="third")
    for path in ("/v1/keys", "/v1/audit"):
        assert submitter.get(path).status_code == 403


@pytest.mark.parametrize("field", ["model_id", "dataset_id", "calibration_id", "train_id"])
def test_nothing_of_another_key_can_be_used_in_a_job(stranger: TestClient, ids: dict[str, Any], field: str) -> None:
    own = submit(stranger)["request"]
    options = {"recover": {"seconds": 60}} if field == "train_id" else {}
    body = own | options | {field: ids["request"]["model_id" if field == "model_id" else "dataset_id"]}
    answer = stranger.post("/v1/jobs", json=body)
    assert answer.status_code == 404, answer.text
    assert stranger.post("/v1/jobs", json=own).status_code == 202


def test_the_same_idempotency_key_of_another_key_is_another_request(client: TestClient, stranger: TestClient) -> None:
    headers = {"Idempotency-Key": "same"}
    first = client.post("/v1/models", json={"name": "m"}, headers=headers).json()
    second = stranger.post("/v1/models", json={"name": "m"}, headers=headers).json()
    assert first["id"] != second["id"]


def test_the_same_bytes_of_two_keys_do_not_show_that_the_other_has_them(
    client: TestClient, stranger: TestClient
) -> None:
    """Blobs are shared in the store, but no answer depends on whether one is there already."""
    first = client.post("/v1/datasets", params={"name": "a.jsonl"}, content=ROWS)
    second = stranger.post("/v1/datasets", params={"name": "a.jsonl"}, content=ROWS)
    assert first.status_code == second.status_code == 201
    same = set(first.json()) - {"id", "created_at"}
    assert {name: first.json()[name] for name in same} == {name: second.json()[name] for name in same}
    assert client.delete(f"/v1/datasets/{first.json()['id']}").status_code == 204
    assert stranger.get(f"/v1/datasets/{second.json()['id']}").status_code == 200
