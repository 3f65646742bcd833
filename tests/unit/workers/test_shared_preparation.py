"""What a job computes from model and data alone is computed once, whatever the device."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import JobBlob
from infra.database.models import SharedResult
from infra.steps import create_step
from tests.unit.workers.test_recovery_job import Service

ASKED = {"strategy": "guided", "budget": {"seconds": None, "trials": 1}, "workload": {"sequence_length": 32}}


@pytest.fixture(scope="module")
def service_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service_ = Service(tmp_path_factory.mktemp("home"))
    yield service_
    service_.worker.close()
    service_.database.dispose()


def prepared(service_: Service, folder: Path, **changes: object) -> Job:
    """A job whose preparation and option database are there; nothing is measured."""
    job_id = service_.submit(folder, **ASKED | changes)
    service_.run(job_id, until="graphs")
    with service_.database.write_session() as session:
        step_id = create_step(session, job_id=job_id, kind="options", key="options", queue="compute").id
    assert service_.worker.run(step_id)
    with service_.database.read_session() as session:
        job = session.get_one(Job, job_id)
    assert "options" in job.prepared
    return job


def steps_without_work(service_: Service, job: Job) -> set[str]:
    notices = service_.rows(Event, job_id=job.id, kind="notice")
    return {event.payload["step"] for event in notices if event.payload.get("shared")}


def computed(service_: Service, job: Job) -> set[str]:
    return {event.payload.get("doing") for event in service_.rows(Event, job_id=job.id, kind="progress")}


def files(service_: Service, job: Job) -> dict[str, str]:
    return {row.name: row.sha256 for row in service_.rows(JobBlob, job_id=job.id)}


def test_another_device_or_upload_computes_nothing_and_other_content_does(service_: Service, tmp_path: Path) -> None:
    first = prepared(service_, tmp_path / "first")
    assert steps_without_work(service_, first) == set()
    assert {"calibrating", "options"} <= computed(service_, first)
    assert {row.kind for row in service_.rows(SharedResult)} == {"prepare", "calibration", "options"}

    pytest.importorskip("openvino")
    second = prepared(service_, tmp_path / "second", device="local-openvino", goal={"max_drop": 0.02})
    assert steps_without_work(service_, second) == {"prepare", "options"}
    assert not {"calibrating", "running the dense model", "options"} & computed(service_, second)
    assert second.prepared["options"] == first.prepared["options"]
    assert second.prepared["dense"] == first.prepared["dense"]
    assert files(service_, second) == files(service_, first)

    narrower = prepared(service_, tmp_path / "narrower", space={"kinds": ["heads", "ffn"]})
    assert steps_without_work(service_, narrower) == {"prepare", "options"}, "the search leaves out the others"

    batch = prepared(service_, tmp_path / "batch", workload={"batch": 2, "sequence_length": 32})
    assert steps_without_work(service_, batch) == {"prepare", "options"}
    assert not {"calibrating", "running the dense model", "options"} & computed(service_, batch)
    one, two = files(service_, first), files(service_, batch)
    assert (one["calibration"], one["dense_outputs"]) == (two["calibration"], two["dense_outputs"])
    assert one["timing_feeds"] != two["timing_feeds"]

    shorter = prepared(service_, tmp_path / "shorter", workload={"sequence_length": 16})
    assert steps_without_work(service_, shorter) == set()
    assert files(service_, shorter)["calibration"] != files(service_, first)["calibration"]
