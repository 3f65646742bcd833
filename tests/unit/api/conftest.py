"""The real app on a real SQLite database and the real local store."""

import shutil
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from api.services import Services
from infra.api_keys import ALL_SCOPES
from infra.api_keys import new_key
from infra.database.migrate import upgrade
from infra.database.models import Device
from infra.settings import Settings
from infra.settings import load_settings
from tests.security.model_bytes import model_files

ROWS = b"".join(b'{"text": "a good film", "label": 1}\n{"text": "a bad film", "label": 0}\n' for _ in range(20))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database file to copy."""
    home = tmp_path_factory.mktemp("template")
    upgrade(load_settings(home=home))
    return home / "paretune.db"


@pytest.fixture
def settings(tmp_path: Path, empty_database: Path) -> Settings:
    shutil.copy(empty_database, tmp_path / "paretune.db")
    return load_settings(home=tmp_path, allowed_hosts=("testserver", "127.0.0.1"))


@dataclass
class World:
    """An app with one registered device, and clients with different keys."""

    app: FastAPI
    services: Services
    stack: ExitStack

    def client(self, *scopes: str, name: str = "key") -> TestClient:
        """A client with a new key; all scopes by default."""
        row, text = new_key(name, scopes or ALL_SCOPES)
        with self.services.database.write_session() as session:
            session.add(row)
        return self.client_with(text)

    def client_with(self, key: str | None) -> TestClient:
        """A client with this key, or with none; its event loop lives as long as the test."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        client = TestClient(self.app, headers=headers, raise_server_exceptions=False, follow_redirects=False)
        return self.stack.enter_context(client)


@pytest.fixture
def world(settings: Settings) -> Iterator[World]:
    app = create_app(settings)
    services: Services = app.state.services
    with services.database.write_session() as session:
        session.add(Device(name="local-cpu", profiler="onnxruntime"))
    with ExitStack() as stack:
        yield World(app, services, stack)


@pytest.fixture
def client(world: World) -> TestClient:
    return world.client(name="first")


@pytest.fixture
def stranger(world: World) -> TestClient:
    """Another key with all scopes."""
    return world.client(name="second")


UploadModel = Callable[..., dict[str, Any]]


def upload_model(client: TestClient, files: dict[str, bytes] | None = None, name: str = "tiny") -> dict[str, Any]:
    """Upload a model to the end and return it."""
    created = client.post("/v1/models", json={"name": name})
    assert created.status_code == 201, created.text
    model_id = created.json()["id"]
    for file, content in (files or model_files()).items():
        answer = client.put(f"/v1/models/{model_id}/files/{file}", content=content)
        assert answer.status_code == 200, answer.text
    done = client.post(f"/v1/models/{model_id}/complete")
    assert done.status_code == 200, done.text
    body: dict[str, Any] = done.json()
    return body


def upload_dataset(client: TestClient, content: bytes = ROWS, name: str = "dev.jsonl") -> dict[str, Any]:
    """Upload a dataset and return it."""
    answer = client.post("/v1/datasets", params={"name": name}, content=content)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    return body


def submit(client: TestClient, **changes: Any) -> dict[str, Any]:
    """Upload a model and a dataset, submit a job, return it."""
    body = {"model_id": upload_model(client)["id"], "dataset_id": upload_dataset(client)["id"]} | changes
    answer = client.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    job: dict[str, Any] = answer.json()
    return job
