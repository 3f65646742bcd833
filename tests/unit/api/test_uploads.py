"""Resumable uploads."""

import hashlib

from fastapi.testclient import TestClient

from tests.security import model_bytes
from tests.unit.api.conftest import ROWS


def start(client: TestClient, length: int, **fields: object) -> str:
    body = {"kind": "dataset", "name": "dev.jsonl", "length": length} | fields
    answer = client.post("/v1/uploads", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.headers["location"])


def send(client: TestClient, path: str, offset: int, piece: bytes) -> int:
    return client.patch(path, content=piece, headers={"Upload-Offset": str(offset)}).status_code


def test_pieces_become_a_dataset(client: TestClient) -> None:
    path = start(client, len(ROWS), sha256=hashlib.sha256(ROWS).hexdigest())
    assert send(client, path, 0, ROWS[:100]) == 204
    head = client.head(path)
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("100", str(len(ROWS)))
    assert send(client, path, 100, ROWS[100:]) == 204
    done = client.post(f"{path}/complete")
    assert done.status_code == 200, done.text
    dataset = done.json()["dataset"]
    assert dataset["rows"] == 40
    assert dataset["sha256"] == hashlib.sha256(ROWS).hexdigest()
    gone = client.get(path)
    assert (gone.status_code, "in a new upload" in gone.json()["hint"]) == (404, True)


def test_completing_again_gives_the_same_answer(client: TestClient, stranger: TestClient) -> None:
    path = start(client, len(ROWS))
    send(client, path, 0, ROWS)
    body = {"sha256": hashlib.sha256(ROWS).hexdigest()}
    first = client.post(f"{path}/complete", json=body)
    assert first.status_code == 200
    for repeated in (body, None):
        again = client.post(f"{path}/complete", json=repeated)
        assert again.status_code == 200
        assert again.json() == first.json()
        assert again.headers["idempotent-replay"] == "true"
    assert len(client.get("/v1/datasets").json()["items"]) == 1
    other = client.post(f"{path}/complete", json={"sha256": "0" * 64})
    assert other.status_code == 422
    assert body["sha256"] in other.json()["detail"]
    assert stranger.post(f"{path}/complete", json=body).status_code == 404


def test_a_file_of_a_model_can_be_completed_again_when_the_model_is_ready(client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    files = model_bytes.model_files()
    weights = files.pop("model.safetensors")
    for name, content in files.items():
        client.put(f"/v1/models/{model_id}/files/{name}", content=content)
    path = start(client, len(weights), kind="model-file", name="model.safetensors", model_id=model_id)
    send(client, path, 0, weights)
    first = client.post(f"{path}/complete").json()
    ready = client.post(f"/v1/models/{model_id}/complete").json()
    again = client.post(f"{path}/complete", json={"sha256": hashlib.sha256(weights).hexdigest()})
    assert (again.status_code, again.json()) == (200, first)
    assert client.get(f"/v1/models/{model_id}").json() == ready


def test_an_upload_that_was_given_up_stays_gone(client: TestClient) -> None:
    path = start(client, len(ROWS))
    send(client, path, 0, ROWS)
    assert client.delete(path).status_code == 204
    assert client.post(f"{path}/complete").status_code == 404


def test_only_the_next_piece_is_taken(client: TestClient) -> None:
    path = start(client, 300)
    assert send(client, path, 0, b"x" * 100) == 204
    for offset in (0, 50, 101, 200):
        assert send(client, path, offset, b"y" * 10) == 409
    assert client.head(path).headers["upload-offset"] == "100"
    assert send(client, path, 100, b"z" * 201) == 413
    assert send(client, path, 100, b"") == 422
    assert client.patch(path, content=b"x").status_code == 422


def test_an_incomplete_or_different_file_is_not_accepted(client: TestClient) -> None:
    path = start(client, len(ROWS))
    send(client, path, 0, ROWS[:-1])
    assert client.post(f"{path}/complete").status_code == 409
    send(client, path, len(ROWS) - 1, ROWS[-1:])
    wrong = client.post(f"{path}/complete", json={"sha256": "0" * 64})
    assert wrong.status_code == 422
    assert "sha256" in wrong.json()["detail"]
    assert client.post(f"{path}/complete", json={"sha256": hashlib.sha256(ROWS).hexdigest()}).status_code == 200


def test_weights_can_come_in_pieces(client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    files = model_bytes.model_files()
    weights = files.pop("model.safetensors")
    for name, content in files.items():
        client.put(f"/v1/models/{model_id}/files/{name}", content=content)
    path = start(client, len(weights), kind="model-file", name="model.safetensors", model_id=model_id)
    for offset in range(0, len(weights), 5000):
        assert send(client, path, offset, weights[offset : offset + 5000]) == 204
    assert client.post(f"{path}/complete").json()["file"]["sha256"] == hashlib.sha256(weights).hexdigest()
    assert client.post(f"/v1/models/{model_id}/complete").json()["state"] == "ready"


def test_what_would_be_refused_at_the_end_is_refused_at_the_start(client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    bodies: list[tuple[dict[str, object], int]] = [
        ({"kind": "dataset", "name": "d.xlsx", "length": 5}, 422),
        ({"kind": "model-file", "name": "pytorch_model.bin", "length": 5, "model_id": model_id}, 422),
        ({"kind": "model-file", "name": "config.json", "length": 1 << 30, "model_id": model_id}, 413),
        ({"kind": "model-file", "name": "config.json", "length": 5, "model_id": "none"}, 404),
        ({"kind": "model-file", "name": "config.json", "length": 5}, 422),
        ({"kind": "dataset", "name": "../../x.csv", "length": 0}, 422),
    ]
    for body, status in bodies:
        assert client.post("/v1/uploads", json=body).status_code == status, body
