"""Models: upload file by file, verification, ownership."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.app import create_app
from api.models.service import _check_inside
from infra.api_keys import new_key
from infra.errors import InvalidModelError
from infra.settings import Settings
from tests.security import model_bytes
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.conftest import upload_model


def test_a_folder_uploaded_file_by_file_becomes_a_ready_model(client: TestClient) -> None:
    model = upload_model(client)
    assert model["state"] == "ready"
    assert model["architecture"] == "BertForSequenceClassification"
    facts = model["facts"]
    expected = sum((shape[0] * (shape[1] if len(shape) > 1 else 1)) for _, shape in model_bytes.tensors().values())
    assert facts["parameters"] == expected
    assert facts["tasks"] == ["sequence-classification", "embedding"]
    assert facts["labels"] == ["bad", "good"]
    assert facts["max_sequence_length"] == 512
    assert {file["name"] for file in model["files"]} == set(model_bytes.model_files())
    assert client.get(f"/v1/models/{model['id']}").json() == model


def test_files_that_are_not_needed_are_accepted_and_not_kept(client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    answer = client.put(f"/v1/models/{model_id}/files/README.md", content=b"# hello")
    assert answer.json() == {"name": "README.md", "sha256": None, "size": 7, "stored": False}
    assert client.get(f"/v1/models/{model_id}").json()["files"] == []


def test_a_damaged_file_is_refused_when_it_arrives_and_can_be_sent_again(client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    files = model_bytes.model_files()
    path = f"/v1/models/{model_id}/files/model.safetensors"
    refused = client.put(path, content=files["model.safetensors"][:-10])
    assert refused.status_code == 422
    assert "truncated" in refused.json()["detail"]
    for name, content in files.items():
        assert client.put(f"/v1/models/{model_id}/files/{name}", content=content).status_code == 200
    assert client.post(f"/v1/models/{model_id}/complete").json()["state"] == "ready"


def test_an_incomplete_model_says_what_is_missing_and_stays_open(client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    files = model_bytes.model_files()
    tokenizer = files.pop("tokenizer.json")
    for name, content in files.items():
        client.put(f"/v1/models/{model_id}/files/{name}", content=content)
    refused = client.post(f"/v1/models/{model_id}/complete")
    assert refused.status_code == 422
    assert "tokenizer" in refused.json()["detail"]
    assert client.get(f"/v1/models/{model_id}").json()["state"] == "uploading"
    client.put(f"/v1/models/{model_id}/files/tokenizer.json", content=tokenizer)
    assert client.post(f"/v1/models/{model_id}/complete").status_code == 200


def test_weights_that_do_not_fit_the_config_are_refused(client: TestClient) -> None:
    model_id = client.post("/v1/models", json={"name": "m"}).json()["id"]
    files = model_bytes.model_files(config__json=model_bytes.dump(model_bytes.config(num_hidden_layers=3)))
    for name, content in files.items():
        assert client.put(f"/v1/models/{model_id}/files/{name}", content=content).status_code == 200
    refused = client.post(f"/v1/models/{model_id}/complete")
    assert refused.status_code == 422
    assert "2 encoder layers; config.json says 3" in refused.json()["detail"]


def test_a_ready_model_cannot_change(client: TestClient) -> None:
    model = upload_model(client)
    answer = client.put(f"/v1/models/{model['id']}/files/config.json", content=b"{}")
    assert answer.status_code == 409


def test_a_model_that_a_job_uses_cannot_be_deleted(client: TestClient) -> None:
    job = submit(client)
    model_id = job["request"]["model_id"]
    assert client.delete(f"/v1/models/{model_id}").status_code == 409
    unused = upload_model(client)["id"]
    assert client.delete(f"/v1/models/{unused}").status_code == 204
    assert client.get(f"/v1/models/{unused}").status_code == 404


def test_server_paths_only_where_the_operator_allows_them(world: World, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in model_bytes.model_files().items():
        (folder / name).write_bytes(content)
    body = {"name": "from disk", "server_path": str(folder)}
    refused = world.client().post("/v1/models", json=body)
    assert refused.status_code == 403
    assert "PARETUNE_ALLOW_SERVER_PATHS" in refused.json()["hint"]

    app = create_app(settings.model_copy(update={"allow_server_paths": True}))
    row, text = new_key("k", ["submit", "read"])
    with world.services.database.write_session() as session:
        session.add(row)
    allowed = TestClient(app, headers={"Authorization": f"Bearer {text}"}).post("/v1/models", json=body)
    assert allowed.status_code == 201
    assert allowed.json()["state"] == "ready"
    stored = next(file for file in allowed.json()["files"] if file["name"] == "config.json")
    with world.services.store.open(stored["sha256"]) as stream:
        assert stream.read() == (folder / "config.json").read_bytes()


def test_a_repeated_request_does_not_read_the_folder_again(world: World, settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name, content in model_bytes.model_files().items():
        (folder / name).write_bytes(content)
    world.app.state.services = replace(
        world.services, settings=settings.model_copy(update={"allow_server_paths": True})
    )
    client = world.client()
    body, headers = {"name": "from disk", "server_path": str(folder)}, {"Idempotency-Key": "once"}
    first = client.post("/v1/models", json=body, headers=headers)
    assert first.status_code == 201, first.text
    shutil.rmtree(folder)
    again = client.post("/v1/models", json=body, headers=headers)
    assert (again.status_code, again.json()) == (201, first.json())
    assert again.headers["idempotent-replay"] == "true"
    assert client.post("/v1/models", json=body).status_code == 422


def test_a_folder_in_the_root_of_the_disk_is_one_like_any_other() -> None:
    _check_inside(Path("/model"), "config.json", Path("/model/config.json"))
    with pytest.raises(InvalidModelError, match="link out of the folder"):
        _check_inside(Path("/model"), "config.json", Path("/elsewhere/config.json"))


@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "distilbert"])
@pytest.mark.parametrize("task", ["sequence-classification", "embedding"])
def test_what_transformers_saves_is_accepted(client: TestClient, tmp_path: Path, model_type: str, task: str) -> None:
    from tests.helpers.tiny_models import make_tiny_model

    folder = make_tiny_model(tmp_path / "m", model_type, task)
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    model = upload_model(client, files)
    assert task in model["facts"]["tasks"]
    assert model["facts"]["model_type"] == model_type
