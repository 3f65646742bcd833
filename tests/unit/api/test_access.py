"""API keys, scopes, and ownership."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from redis import Redis
from sqlmodel import select

from api.app import create_app
from api.rate_limit import RateLimiter
from api.rate_limit import SharedRateLimiter
from api.rate_limit import make_limiter
from infra.api_keys import new_key
from infra.broker import broker_client
from infra.clock import utcnow
from infra.database.models import ApiKey
from infra.database.models import AuditEntry
from infra.database.models import Job
from infra.embedded.home import prepare_home
from infra.embedded.process import ManagedProcess
from infra.embedded.valkey import valkey_process
from infra.errors import RateLimitedError
from infra.settings import Settings
from infra.settings import broker_socket
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.outcome import add_outcome


def test_without_a_key_everything_but_operations_is_closed(world: World) -> None:
    nobody = world.client_with(None)
    for path, operations in world.app.openapi()["paths"].items():
        for method in operations:
            filled = path.replace("{name}", "x").replace("{", "").replace("}", "")
            answer = nobody.request(method.upper(), filled, headers={"Upload-Offset": "0"}, params={"name": "x.csv"})
            if path.startswith(("/health", "/metrics")):
                assert answer.status_code == 200, path
            else:
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "text", ["", "x", "pt_nothing.secret", "{prefix}", "{prefix}.", "{prefix}.wrong", "{prefix}.é"]
)
def test_wrong_keys_get_the_same_answer(world: World, text: str) -> None:
    row, _ = new_key("k", ["read"])
    with world.services.database.write_session() as session:
        session.add(row)
    header = f"Bearer {text.format(prefix=row.prefix)}".encode()
    answer = world.client_with(None).get("/v1/jobs", headers={b"Authorization": header})
    assert answer.status_code == 401


def test_expired_and_revoked_keys_do_not_work(world: World) -> None:
    for changes in ({"expires_at": utcnow() - timedelta(seconds=1)}, {"revoked_at": utcnow()}):
        row, text = new_key("k", ["read"])
        for name, value in changes.items():
            setattr(row, name, value)
        with world.services.database.write_session() as session:
            session.add(row)
        answer = world.client_with(text).get("/v1/jobs")
        assert answer.status_code == 401


def test_scopes_limit_what_a_key_may_do(world: World) -> None:
    reader, submitter = world.client("read"), world.client("read", "submit")
    assert reader.get("/v1/jobs").status_code == 200
    refused = reader.post("/v1/models", json={"name": "m"})
    assert refused.status_code == 403
    assert "submit" in refused.json()["detail"]
    assert submitter.post("/v1/models", json={"name": "m"}).status_code == 201
    assert submitter.get("/v1/keys").status_code == 403
    assert submitter.post("/v1/devices", json={"name": "d", "profiler": "onnxruntime"}).status_code == 403
    assert world.client("submit").get("/v1/jobs").status_code == 403


def test_the_secret_is_shown_once_and_never_stored(world: World, client: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "ci"}).json()
    secret = made["key"].partition(".")[2]
    assert len(secret) >= 43  # 256 bits
    assert secret not in client.get("/v1/keys").text
    world.services.database.dispose()
    for path in world.services.settings.home.rglob("*"):
        if path.is_file():
            assert secret.encode() not in path.read_bytes(), path


def test_rotating_keeps_what_the_key_owns(world: World, client: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "ci"}).json()
    old = world.client_with(made["key"])
    model = old.post("/v1/models", json={"name": "m"}).json()
    renewed = client.post(f"/v1/keys/{made['id']}/rotate").json()
    assert old.get("/v1/models").status_code == 401
    new = world.client_with(renewed["key"])
    assert [item["id"] for item in new.get("/v1/models").json()["items"]] == [model["id"]]


def test_revoking_is_final_and_written_down(world: World, client: TestClient) -> None:
    made = client.post("/v1/keys", json={"name": "ci"}).json()
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert client.delete(f"/v1/keys/{made['id']}").status_code == 204
    assert client.post(f"/v1/keys/{made['id']}/rotate").status_code == 409
    answer = world.client_with(made["key"]).get("/v1/jobs")
    assert answer.status_code == 401
    with world.services.database.read_session() as session:
        entries = session.exec(select(AuditEntry.action).where(AuditEntry.target == made["id"])).all()
    assert entries == ["key.create", "key.revoke"]


def test_administrators_can_read_who_did_what(world: World, client: TestClient) -> None:
    job = submit(client)
    client.post(f"/v1/jobs/{job['id']}/cancel")
    client.delete(f"/v1/jobs/{job['id']}")
    client.delete(f"/v1/models/{job['request']['model_id']}")
    own = client.get("/v1/keys/me").json()["id"]
    newest = client.get("/v1/audit", params={"limit": 2}).json()
    older = client.get("/v1/audit", params={"cursor": newest["next_cursor"]}).json()
    entries = newest["items"] + older["items"]
    assert [entry["action"] for entry in entries] == ["model.delete", "job.delete", "job.cancel"]
    assert {entry["principal"] for entry in entries} == {own}
    assert world.client("read", "submit").get("/v1/audit").status_code == 403


def test_a_key_cannot_revoke_itself(client: TestClient) -> None:
    own = client.get("/v1/keys/me").json()
    assert client.delete(f"/v1/keys/{own['id']}").status_code == 409


def test_a_key_never_sees_what_belongs_to_another(world: World, client: TestClient, stranger: TestClient) -> None:
    job = submit(client)
    with world.services.database.write_session() as session:
        row = session.get(Job, job["id"])
        assert row is not None
        add_outcome(session, row)
    export = client.post(f"/v1/jobs/{job['id']}/exports", json={}).json()
    upload = client.post("/v1/uploads", json={"kind": "dataset", "name": "d.csv", "length": 3}).json()
    request = job["request"]
    paths = [
        f"/v1/models/{request['model_id']}",
        f"/v1/datasets/{request['dataset_id']}",
        f"/v1/uploads/{upload['id']}",
        f"/v1/exports/{export['id']}",
        f"/v1/exports/{export['id']}/files/model.onnx",
    ]
    paths += [
        f"/v1/jobs/{job['id']}{rest}"
        for rest in ("", "/trials", "/trials/2", "/front", "/best", "/report", "/events", "/exports")
    ]
    for path in paths:
        theirs, never = stranger.get(path), stranger.get(path.replace(job["id"], "no-such-id"))
        assert theirs.status_code == 404, path
        assert never.status_code == 404
        assert theirs.json()["title"] == never.json()["title"]
    for path in ("/v1/models", "/v1/datasets", "/v1/jobs"):
        assert stranger.get(path).json()["items"] == []
    changes = [
        ("DELETE", f"/v1/models/{request['model_id']}", None),
        ("PUT", f"/v1/models/{request['model_id']}/files/config.json", None),
        ("POST", f"/v1/models/{request['model_id']}/complete", None),
        ("DELETE", f"/v1/datasets/{request['dataset_id']}", None),
        ("POST", f"/v1/jobs/{job['id']}/cancel", None),
        ("PATCH", f"/v1/jobs/{job['id']}", {"priority": 9}),
        ("DELETE", f"/v1/jobs/{job['id']}", None),
        ("POST", f"/v1/jobs/{job['id']}/exports", {}),
        ("POST", f"/v1/uploads/{upload['id']}/complete", None),
        ("DELETE", f"/v1/uploads/{upload['id']}", None),
        ("POST", "/v1/jobs", request),
    ]
    for method, path, body in changes:
        assert stranger.request(method, path, json=body).status_code == 404, (method, path)
    assert client.get(f"/v1/jobs/{job['id']}").json()["state"] == "running"


def test_keys_are_hashed_with_a_unique_prefix(world: World) -> None:
    rows = [new_key("k", ["read"])[0] for _ in range(100)]
    assert len({row.prefix for row in rows}) == 100
    with world.services.database.write_session() as session:
        session.add_all(rows)
    with world.services.database.read_session() as session:
        stored = session.exec(select(ApiKey.secret_hash)).all()
    assert all(len(value) == 64 for value in stored)


def test_a_key_that_sends_too_much_is_slowed_down_and_others_are_not(world: World) -> None:
    world.app.state.limiter = RateLimiter(5)
    busy, calm = world.client(), world.client()
    answers = [busy.get("/v1/jobs") for _ in range(7)]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert answers[-1].headers["retry-after"]
    assert calm.get("/v1/jobs").status_code == 200


def test_guessing_keys_is_slowed_down(world: World) -> None:
    world.app.state.limiter = RateLimiter(5)
    guesser = world.client_with("pt_guess.guess")
    assert [guesser.get("/v1/jobs").status_code for _ in range(7)] == [401] * 5 + [429] * 2


def test_a_bucket_refills_with_time() -> None:
    now = 0.0
    limiter = RateLimiter(60, clock=lambda: now)
    for _ in range(60):
        limiter.take("a")
    with pytest.raises(RateLimitedError):
        limiter.take("a")
    now = 2.0
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(RateLimitedError):
        limiter.take("a")


@pytest.fixture
def broker(settings: Settings) -> Iterator[ManagedProcess]:
    """The real broker of the home."""
    prepare_home(settings)
    process = valkey_process(settings)
    process.start()
    assert process.wait_ready(30)
    yield process
    process.kill()


def test_api_processes_share_their_limits_through_the_broker(settings: Settings, broker: ManagedProcess) -> None:
    limited = settings.model_copy(update={"requests_per_minute": 6})
    one, other = make_limiter(limited), make_limiter(limited)
    for limiter in (one, other, one, other, one, other):
        limiter.take("a")
    for limiter in (one, other):
        with pytest.raises(RateLimitedError):
            limiter.take("a")
        limiter.take("b")
    with Redis(unix_socket_path=str(broker_socket(settings.home))) as client:
        assert 0 < client.ttl("paretune:rate:a") <= 60


def test_without_a_broker_each_process_limits_alone(settings: Settings, broker: ManagedProcess) -> None:
    now = 0.0
    client = broker_client(settings, 0.5)
    limiter = SharedRateLimiter(2, client, clock=lambda: now)
    limiter.take("a")
    broker.kill()
    limiter.take("a")
    limiter.take("a")
    with pytest.raises(RateLimitedError):
        limiter.take("a")
    broker.start()
    assert broker.wait_ready(30)
    now = 10.0  # looks again
    limiter.take("new")
    assert client.exists("paretune:rate:new")


def test_a_broker_of_another_kind_is_no_obstacle(settings: Settings) -> None:
    assert isinstance(make_limiter(settings.model_copy(update={"broker_url": "amqp://host"})), RateLimiter)


def test_the_number_of_active_jobs_of_a_key_is_limited(settings: Settings, world: World) -> None:
    app = create_app(settings.model_copy(update={"max_active_jobs": 2}))
    client = World(app, app.state.services, world.stack).client()
    body = submit(client)["request"]
    assert client.post("/v1/jobs", json=body).status_code == 202
    refused = client.post("/v1/jobs", json=body)
    assert refused.status_code == 429
    assert "have 2 jobs" in refused.json()["detail"]
    newest = client.get("/v1/jobs").json()["items"][0]["id"]
    client.post(f"/v1/jobs/{newest}/cancel")
    assert client.post("/v1/jobs", json=body).status_code == 202


def test_quotas_of_a_key_count_instead_of_those_of_the_service(world: World) -> None:
    admin, client = world.client("read", "submit", "admin"), world.client("read", "submit")
    key = client.get("/v1/keys/me").json()["id"]
    limits = {"max_active_jobs": 1, "max_workers": 2, "max_priority": 4}
    changed = admin.patch(f"/v1/keys/{key}", json=limits)
    assert changed.status_code == 200
    assert {name: client.get("/v1/keys/me").json()[name] for name in limits} == limits
    job = submit(client)
    assert job["request"]["priority"] == 4  # lowered: it was not asked for
    refused = client.post("/v1/jobs", json=job["request"])
    assert refused.status_code == 429
    assert admin.patch(f"/v1/keys/{key}", json={"max_active_jobs": None}).json()["max_priority"] == 4
    assert client.post("/v1/jobs", json=job["request"]).status_code == 202
    refused = client.post("/v1/jobs", json=job["request"] | {"priority": 5})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "priority"
    assert client.patch(f"/v1/keys/{key}", json=limits).status_code == 403
    assert admin.patch(f"/v1/keys/{key}", json={"max_priority": 10}).status_code == 422
    assert admin.patch("/v1/keys/none", json=limits).status_code == 404


def test_a_key_is_made_with_its_quotas(world: World) -> None:
    admin = world.client("admin")
    made = admin.post("/v1/keys", json={"name": "ci", "scopes": ["read"], "max_workers": 3}).json()
    assert (made["max_workers"], made["max_active_jobs"], made["max_priority"]) == (3, None, None)
