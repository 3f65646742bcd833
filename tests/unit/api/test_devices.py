"""Devices and operations."""

from fastapi.testclient import TestClient

from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit


def test_registering_listing_and_removing(client: TestClient) -> None:
    body = {"name": "cpu-4", "profiler": "onnxruntime", "options": {"affinity": [0, 1]}}
    made = client.post("/v1/devices", json=body)
    assert made.status_code == 201
    assert client.get("/v1/devices/cpu-4").json() == made.json()
    assert {device["name"] for device in client.get("/v1/devices").json()["items"]} == {"local-cpu", "cpu-4"}
    assert client.post("/v1/devices", json=body).status_code == 409
    assert client.delete("/v1/devices/cpu-4").status_code == 204
    assert client.get("/v1/devices/cpu-4").status_code == 404


def test_names_and_profilers_are_checked(client: TestClient) -> None:
    for name in ("", "Big", "a b", "../x", "x" * 64):
        assert client.post("/v1/devices", json={"name": name, "profiler": "onnxruntime"}).status_code == 422
    unknown = client.post("/v1/devices", json={"name": "x", "profiler": "abacus"})
    assert unknown.status_code == 422
    assert "onnxruntime" in unknown.json()["hint"]


def test_a_device_that_a_job_uses_stays(client: TestClient) -> None:
    submit(client)
    assert client.delete("/v1/devices/local-cpu").status_code == 409


def test_metrics_count_rows_and_requests(world: World, client: TestClient) -> None:
    job = submit(client)
    client.get(f"/v1/jobs/{job['id']}")
    text = world.client_with(None).get("/metrics").text
    assert 'paretune_jobs{state="queued"} 1.0' in text
    assert 'paretune_steps{queue="compute",state="queued"} 1.0' in text
    assert 'paretune_device_busy{device="local-cpu"} 0.0' in text
    assert 'paretune_http_requests_total{method="GET",route="/v1/jobs/{job_id}",status="200"} 1.0' in text
    assert job["id"] not in text


def test_health(world: World) -> None:
    nobody = world.client_with(None)
    assert nobody.get("/health/live").json()["status"] == "live"
    ready = nobody.get("/health/ready").json()
    assert {check["name"]: check["ok"] for check in ready["checks"]} == {"database": True, "store": True, "disk": True}
