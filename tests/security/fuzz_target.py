"""A service that really runs, with one of everything in it, for generated requests."""

import random
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from pathlib import Path

import httpx2
import schemathesis
from schemathesis.checks import content_type_conformance
from schemathesis.checks import not_a_server_error
from schemathesis.checks import response_schema_conformance
from schemathesis.checks import status_code_conformance
from sqlmodel import select

from api.app import create_app
from infra.database.models import Device
from infra.database.models import Export
from infra.database.models import Job
from infra.database.models import Trial
from infra.settings import load_settings
from search.lifecycle import cancel_job
from tests.security.model_bytes import model_files
from tests.unit.api.conftest import ROWS
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.outcome import add_outcome

CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)

_ROOT = Path(__file__).parents[2]
_START_SECONDS = 60


class Target:
    """The service, a key with all scopes, the ids of what there is, and what was answered."""

    def __init__(self, world: World, url: str, log: Path) -> None:
        self.url = url
        self.log = log
        self.answers: Counter[tuple[str, int]] = Counter()
        """Number of answers by operation and status."""
        client = world.client()
        self.key = client.headers["authorization"].removeprefix("Bearer ")
        self.headers = {"Authorization": f"Bearer {self.key}"}
        self.own_key_id = client.get("/v1/keys/me").json()["id"]
        job = submit(client)
        with world.services.database.write_session() as session:
            row = session.get_one(Job, job["id"])
            add_outcome(session, row)
            cancel_job(session, row)  # a running job's event stream would not end
            trial = session.exec(select(Trial).where(Trial.job_id == row.id, Trial.number == 2)).one()
            files = [{"name": "model.onnx", "sha256": "0" * 64, "size": 0}]
            export = Export(job_id=row.id, trial_id=trial.id, format="onnx", state="ready", files=files)
            session.add(export)
        upload = client.post("/v1/uploads", json={"kind": "dataset", "name": "d.csv", "length": 1000}).json()
        self.references = {name: job["request"][name] for name in ("model_id", "dataset_id")}
        self.ids = {
            "job_id": job["id"],
            "model_id": client.post("/v1/models", json={"name": "open"}).json()["id"],
            "dataset_id": job["request"]["dataset_id"],
            "upload_id": upload["id"],
            "export_id": export.id,
            "key_id": client.post("/v1/keys", json={"name": "other"}).json()["id"],
            "number": 2,
        }

    def schema(self) -> schemathesis.BaseSchema:
        """The document that the running service gives."""
        return schemathesis.openapi.from_url(f"{self.url}/openapi.json")

    def point_at_what_exists(self, case: schemathesis.Case) -> None:
        """Replace generated ids, of which there are none, by those of rows that are there."""
        known = {name: value for name, value in self.ids.items() if name in case.path_parameters}
        if case.operation.path.startswith("/v1/devices/"):
            known["name"] = "local-cpu"
        elif case.operation.path.startswith("/v1/exports/") and "name" in case.path_parameters:
            known["name"] = "model.onnx"
        case.path_parameters.update(known)
        self.give_what_fits(case)

    def give_what_fits(self, case: schemathesis.Case) -> None:
        """Replace bodies that are never right by chance: files, and references to rows."""
        if case.operation.path == "/v1/jobs" and isinstance(case.body, dict):
            plain = random.random() < 0.5  # generated options seldom fit each other
            case.body = ({} if plain else case.body) | self.references | {"device": "local-cpu"}
        elif case.operation.path == "/v1/models/{model_id}/files/{name}":
            case.path_parameters["name"], case.body = random.choice(list(model_files().items()))
        elif case.operation.path == "/v1/datasets" and case.operation.method == "post":
            case.query["name"], case.body = "dev.jsonl", ROWS

    def spare_what_is_needed(self, case: schemathesis.Case) -> None:
        """Let nothing take away the key of all requests, or the device: afterwards everything would be refused."""
        if case.operation.label == "DELETE /v1/devices/{name}" and case.path_parameters.get("name") == "local-cpu":
            case.path_parameters["name"] = "another"
        if case.path_parameters.get("key_id") == self.own_key_id:
            case.path_parameters["key_id"] = self.ids["key_id"]

    def note(self, case: schemathesis.Case, response: schemathesis.Response) -> None:
        """Count an answer."""
        self.answers[case.operation.label, response.status_code] += 1

    def succeeded(self) -> set[str]:
        """Operations that have been done at least once."""
        return {label for (label, status), _ in self.answers.items() if 200 <= status < 300}


@contextmanager
def running_target(home: Path, database: Path) -> Iterator[Target]:
    """Start a service in a process of its own.

    Args:
        home: An empty directory.
        database: A migrated SQLite file to copy.
    """
    shutil.copy(database, home / "paretune.db")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = load_settings(home=home, port=port, requests_per_minute=10_000_000, max_active_jobs=1_000_000)
    app = create_app(settings.model_copy(update={"allowed_hosts": ("testserver",)}))
    log = home / "api.log"
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.app:create_app", "--port", str(port)]
    with ExitStack() as stack:
        world = World(app, app.state.services, stack)
        with world.services.database.write_session() as session:
            session.add(Device(name="local-cpu", profiler="onnxruntime"))
        target = Target(world, f"http://127.0.0.1:{port}", log)
        output = stack.enter_context(log.open("wb"))
        environment = {**settings.environment(), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(_ROOT)}
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=home)
        stack.callback(server.wait)
        stack.callback(server.terminate)
        _wait_until_it_answers(target.url, server)
        yield target
        assert server.poll() is None, "the service has died"


def _wait_until_it_answers(url: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            httpx2.get(f"{url}/health/live").raise_for_status()
        except httpx2.HTTPError:
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        else:
            return
