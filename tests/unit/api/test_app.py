"""What holds for every request."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from api.openapi import render
from api.problems import TYPE_PREFIX
from api.staging import remove_abandoned
from infra.database.engine import Database
from infra.settings import load_settings
from tests.unit.api.conftest import World

HEAVY = ("torch", "matplotlib", "transformers", "onnxruntime", "optuna", "openvino", "onnx", "celery", "pyarrow")


@pytest.mark.parametrize("module", ["api.app", "search.service", "paretune", "paretune.client", "paretune.cli.app"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import {module}, sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_unknown_paths_and_methods_are_problems(client: TestClient) -> None:
    missing = client.get("/v1/nonsense")
    assert missing.status_code == 404
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.json()["type"] == TYPE_PREFIX + "not-found"
    wrong = client.put("/v1/jobs")
    assert wrong.status_code == 405
    assert set(wrong.headers["allow"].split(", ")) <= {"GET", "POST"}
    assert wrong.headers["content-type"] == "application/problem+json"


def test_validation_problems_name_every_field(client: TestClient) -> None:
    body = {"model_id": "m", "budget": {"seconds": -1}, "colour": "red"}
    problem = client.post("/v1/jobs", json=body).json()
    assert problem["status"] == 422
    assert {error["field"] for error in problem["errors"]} == {"dataset_id", "budget.seconds", "colour"}
    assert problem["hint"]
    broken = client.post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"})
    assert broken.status_code == 422
    assert broken.json()["type"] == TYPE_PREFIX + "invalid-request"


def test_the_request_id_is_kept_or_replaced(client: TestClient) -> None:
    kept = client.get("/v1/nonsense", headers={"X-Request-ID": "my-request-1"})
    assert kept.headers["x-request-id"] == "my-request-1"
    assert kept.json()["instance"].endswith(":my-request-1")
    replaced = client.get("/v1/nonsense", headers={"X-Request-ID": "bad id\twith spaces"})
    assert replaced.headers["x-request-id"] != "bad id\twith spaces"


def test_other_host_names_are_refused(client: TestClient) -> None:
    refused = client.get("/health/live", headers={"Host": "evil.example"})
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert client.get("/health/live", headers={"Host": "testserver:8765"}).status_code == 200


def test_by_default_only_names_of_this_machine_are_answered_to(tmp_path: Path) -> None:
    allowed = load_settings(home=tmp_path).allowed_hosts
    assert set(allowed) == {"localhost", "127.0.0.1", "[::1]"}


def test_large_json_bodies_are_refused_with_and_without_a_length(client: TestClient) -> None:
    body = b'{"name": "' + b"x" * (2 << 20) + b'"}'
    announced = client.post("/v1/models", content=body, headers={"Content-Type": "application/json"})
    assert announced.status_code == 413
    assert announced.json()["type"] == TYPE_PREFIX + "too-large"
    chunks = (body[start : start + 65536] for start in range(0, len(body), 65536))
    chunked = client.post("/v1/models", content=chunks, headers={"Content-Type": "application/json"})
    assert chunked.status_code == 413
    assert chunked.json()["type"] == TYPE_PREFIX + "too-large"


def test_a_form_post_from_another_site_is_not_json(client: TestClient) -> None:
    answer = client.post("/v1/models", content=b'{"name": "m"}', headers={"Content-Type": "text/plain"})
    assert answer.status_code == 422


def test_unexpected_exceptions_are_problems_without_details(world: World) -> None:
    @world.app.get("/explode")
    def explode() -> None:
        raise RuntimeError("secret detail")

    answer = world.client().get("/explode")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret detail" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["instance"]


def test_a_lost_database_is_said_to_be_temporary(world: World) -> None:
    client = world.client()
    world.services.database.dispose()
    path = world.services.settings.home / "paretune.db"
    path.write_bytes(b"not a database, and longer than the header of one" * 100)
    answer = client.get("/v1/jobs")
    assert answer.status_code in {500, 503}
    assert answer.headers["content-type"] == "application/problem+json"
    ready = client.get("/health/ready")
    assert ready.status_code == 503
    assert [check["name"] for check in ready.json()["checks"] if not check["ok"]] == ["database"]


def test_what_the_driver_says_is_for_the_log_only(world: World, caplog: pytest.LogCaptureFixture) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1")
    world.app.state.services = replace(world.services, database=away)
    anybody = world.client_with(None)
    ready, refused = anybody.get("/health/ready"), anybody.get("/v1/jobs", headers={"Authorization": "Bearer pt_0.x"})
    assert (ready.status_code, refused.status_code) == (503, 503)
    check = next(check for check in ready.json()["checks"] if check["name"] == "database")
    assert check["detail"] == refused.json()["detail"] == "The database is not available."
    assert "127.0.0.1" not in ready.text + refused.text
    said = [record.getMessage() for record in caplog.records if record.name == "paretune.api"]
    assert any("not ready: database" in line and "127.0.0.1" in line for line in said)


def test_every_answer_has_safe_headers(client: TestClient) -> None:
    for path in ("/health/live", "/v1/jobs", "/nonsense"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_the_checked_in_openapi_document_is_current() -> None:
    path = Path(__file__).parents[3] / "docs" / "reference" / "openapi.json"
    assert path.read_text(encoding="utf-8") == render(), f"run: python -m api.openapi {path}"


def test_every_operation_documents_problems_and_has_a_unique_id(world: World) -> None:
    document = world.app.openapi()
    ids = []
    for operations in document["paths"].values():
        for operation in operations.values():
            ids.append(operation["operationId"])
            assert "application/problem+json" in operation["responses"]["default"]["content"]
    assert len(ids) == len(set(ids))


def test_what_a_crash_left_in_staging_is_removed_a_day_later(world: World) -> None:
    staging = world.services.staging
    old, young = staging / "body-old", staging / "body-young"
    for path in (old, young):
        path.write_bytes(b"x")
    os.utime(old, (time.time() - 100_000,) * 2)
    assert remove_abandoned(staging) == 1
    assert [path.name for path in staging.iterdir()] == ["body-young"]
