"""Requests made from the OpenAPI document, valid and invalid: no server errors, every answer as documented."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
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
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.outcome import add_outcome

EXAMPLES = 12
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


class Target:
    """An app with one of everything, a key, and the ids of what there is."""

    def __init__(self, world: World) -> None:
        self.world = world
        client = world.client()
        self.headers = dict(client.headers)
        job = submit(client)
        with world.services.database.write_session() as session:
            row = session.get(Job, job["id"])
            assert row is not None
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

    def point_at_what_exists(self, case: schemathesis.Case) -> None:
        """Replace generated ids, of which there are none, by those of rows that are there."""
        known = {name: value for name, value in self.ids.items() if name in case.path_parameters}
        if case.operation.path.startswith("/v1/devices/"):
            known["name"] = "local-cpu"
        elif case.operation.path.startswith("/v1/exports/") and "name" in case.path_parameters:
            known["name"] = "model.onnx"
        case.path_parameters.update(known)
        if case.operation.path == "/v1/jobs" and isinstance(case.body, dict):
            case.body.update(self.references, device="local-cpu")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("schemathesis")
    shutil.copy(empty_database, home / "paretune.db")
    app = create_app(load_settings(home=home, allowed_hosts=("*",)))
    with ExitStack() as stack:
        world = World(app, app.state.services, stack)
        with world.services.database.write_session() as session:
            session.add(Device(name="local-cpu", profiler="onnxruntime"))
        yield Target(world)


def exercise(operation: schemathesis.APIOperation, target: Target) -> None:
    """Send generated requests to one operation, mostly about things that exist."""
    deletes = operation.method == "delete" or operation.path.endswith("/rotate")
    modes = [schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE]

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.data())
    def send(data: st.DataObject) -> None:
        mode = data.draw(st.sampled_from(modes))
        case = data.draw(operation.as_strategy(generation_mode=mode))
        if not deletes and data.draw(st.integers(0, 3)):
            target.point_at_what_exists(case)
        case.call_and_validate(headers=target.headers, checks=CHECKS)

    send()


def test_every_operation(target: Target) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", target.world.app)
    wrong = []
    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:
        try:
            exercise(operation, target)
        except Exception as error:  # all operations are tried before failing
            wrong.append(f"{operation.label}: {error}")
    assert len(operations) > 30
    assert wrong == [], "\n\n".join(wrong)
