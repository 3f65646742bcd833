"""Exports: asked for once, downloaded in ranges."""

import hashlib
import io

import pytest
from fastapi.testclient import TestClient
from sqlmodel import select

from api.exports.files import parse_range
from infra.blobs import put_file
from infra.database.models import Export
from infra.database.models import Step
from infra.store.base import CHUNK_BYTES
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.test_jobs import write_outcome

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def job_id(world: World, client: TestClient) -> str:
    job = submit(client, goal={"max_drop": 0.01})
    write_outcome(world, job["id"])
    return str(job["id"])


def make_ready(world: World, export_id: str, content: bytes = CONTENT) -> str:
    """Do what the worker does; return the file's sha256."""
    ref = put_file(world.services.database, world.services.store, io.BytesIO(content))
    with world.services.database.write_session() as session:
        export = session.get(Export, export_id)
        assert export is not None
        export.state = "ready"
        export.files = [{"name": "onnx/model.onnx", "sha256": ref.sha256, "size": ref.size}]
        session.add(export)
    return ref.sha256


def test_asking_twice_makes_one_export_and_one_step(world: World, client: TestClient, job_id: str) -> None:
    first = client.post(f"/v1/jobs/{job_id}/exports", json={"format": "onnx"})
    assert first.status_code == 202
    assert first.json()["trial"] == 2  # the best by the job's goal
    again = client.post(f"/v1/jobs/{job_id}/exports", json={"format": "onnx", "trial": 2})
    assert again.status_code == 200
    assert again.json()["id"] == first.json()["id"]
    other = client.post(f"/v1/jobs/{job_id}/exports", json={"format": "torch", "goal": {"max_drop": 0.1}})
    assert (other.status_code, other.json()["trial"]) == (202, 3)
    with world.services.database.read_session() as session:
        steps = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "export")).all()
    assert {step.payload["export_id"] for step in steps} == {first.json()["id"], other.json()["id"]}
    assert len(client.get(f"/v1/jobs/{job_id}/exports").json()["items"]) == 2


def test_a_failed_export_is_tried_again(world: World, client: TestClient, job_id: str) -> None:
    export_id = client.post(f"/v1/jobs/{job_id}/exports", json={}).json()["id"]
    with world.services.database.write_session() as session:
        export = session.get(Export, export_id)
        assert export is not None
        export.state, export.error = "failed", {"message": "out of memory"}
        session.add(export)
    again = client.post(f"/v1/jobs/{job_id}/exports", json={})
    assert (again.status_code, again.json()["state"], again.json()["error"]) == (202, "queued", None)
    with world.services.database.read_session() as session:
        steps = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "export")).all()
    assert len(steps) == 2


def test_unknown_and_unmeasured_trials_cannot_be_exported(client: TestClient, job_id: str) -> None:
    assert client.post(f"/v1/jobs/{job_id}/exports", json={"trial": 77}).status_code == 404
    fresh = submit(client)
    assert client.post(f"/v1/jobs/{fresh['id']}/exports", json={}).status_code == 409


def test_a_file_is_downloaded_whole_in_ranges_or_not_again(world: World, client: TestClient, job_id: str) -> None:
    export = client.post(f"/v1/jobs/{job_id}/exports", json={}).json()
    early = client.get(f"/v1/exports/{export['id']}/files/onnx/model.onnx")
    assert early.status_code == 409
    sha256 = make_ready(world, export["id"])
    file = client.get(f"/v1/exports/{export['id']}").json()["files"][0]
    assert file["sha256"] == hashlib.sha256(CONTENT).hexdigest() == sha256

    whole = client.get(file["url"])
    assert whole.content == CONTENT
    assert whole.headers["etag"] == f'"{sha256}"'
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    for header, start, end in (("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-7", -7, None)):
        part = client.get(file["url"], headers={"Range": header})
        assert part.status_code == 206
        assert part.content == CONTENT[start:end]
    assert client.get(file["url"], headers={"Range": "bytes=10240-"}).status_code == 416
    stale = client.get(file["url"], headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert (stale.status_code, stale.content) == (200, CONTENT)
    assert client.get(file["url"], headers={"If-None-Match": whole.headers["etag"]}).status_code == 304
    head = client.head(file["url"])
    assert (head.content, head.headers["content-length"]) == (b"", str(len(CONTENT)))
    assert client.get(f"/v1/exports/{export['id']}/files/../../etc/passwd").status_code == 404


@pytest.mark.parametrize("content", [CONTENT, CONTENT * 300], ids=["one piece", "several pieces"])
def test_damaged_bytes_are_never_sent_as_a_complete_file(
    world: World, client: TestClient, job_id: str, content: bytes
) -> None:
    export = client.post(f"/v1/jobs/{job_id}/exports", json={}).json()
    sha256 = make_ready(world, export["id"], content)
    url = client.get(f"/v1/exports/{export['id']}").json()["files"][0]["url"]
    assert client.get(url, headers={"Range": "bytes=0-9"}).content == content[:10]
    assert client.get(url).content == content
    path = world.services.store.path(sha256)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"X" + content[1:])
    assert client.get(url, headers={"Range": "bytes=5-9"}).status_code == 503  # the damage lies outside of the range
    if len(content) <= CHUNK_BYTES:
        assert client.get(url).status_code == 503
    else:
        assert len(client.get(url).content) < len(content)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=5-100", (5, 10)),
        ("bytes=-100", (0, 10)),
        ("bytes=9-", (9, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("items=0-1", None),
        ("bytes=" + "0-1," * 10_000, None),
    ],
)
def test_ranges(header: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-20", "bytes=-0"])
def test_ranges_outside_of_the_file(header: str) -> None:
    with pytest.raises(ValueError):
        parse_range(header, 10)
