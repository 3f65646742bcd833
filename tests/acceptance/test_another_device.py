"""The same job on another device: calibration and option database are taken over, the device is measured anew.

Another kind of device, which runs other number formats: what is taken over does not depend on that.
"""

import pytest

import paretune
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model

pytestmark = pytest.mark.timeout(600)  # of two whole jobs, on a machine that may be busy

WORKLOAD = {"batch": 1, "sequence_length": 16, "threads": 1}


@pytest.fixture(scope="module")
def jobs(
    client: paretune.Client, tmp_path_factory: pytest.TempPathFactory
) -> tuple[paretune.types.Job, paretune.types.Job]:
    """A job, and the same on another device, whose model and data another upload has brought."""
    folder = tmp_path_factory.mktemp("inputs")
    model = make_tiny_model(folder / "tiny", hidden_size=64, intermediate_size=256)
    data = make_dataset(folder / "data.jsonl", rows=160)
    pytest.importorskip("openvino")
    found = []
    for device in ("local-cpu", "local-openvino"):
        job = client.submit(
            client.upload_model(model),
            client.upload_dataset(data),
            device=device,
            budget_seconds=None,
            budget_trials=4,  # up to three are the dense model in each number format; the last needs the database
            workload=WORKLOAD,
            strategy="guided",
        )
        found.append(client.wait(job, timeout=240))
    return found[0], found[1]


def computed(client: paretune.Client, job: paretune.types.Job) -> set[str]:
    """What the runners of a job said that they were doing."""
    events = [event.payload for event in client.watch(job) if event.kind == "progress"]
    return {event["doing"] for event in events if "doing" in event}


def shared(client: paretune.Client, job: paretune.types.Job) -> list[str]:
    events = [event.payload for event in client.watch(job) if event.kind == "notice"]
    return [event["step"] for event in events if event.get("shared")]


def test_only_the_first_job_calibrates_and_builds_the_database(
    client: paretune.Client, jobs: tuple[paretune.types.Job, paretune.types.Job]
) -> None:
    first, second = jobs
    assert not {"calibrating", "options", "exporting the dense model"} & computed(client, second)
    assert shared(client, first) == []
    assert sorted(shared(client, second)) == ["options", "prepare"]


def test_each_device_has_its_own_front(
    client: paretune.Client, jobs: tuple[paretune.types.Job, paretune.types.Job]
) -> None:
    for job in jobs:
        assert client.job(job).state == "succeeded"
        front = client.front(job)
        assert front["status"] == "confirmed"
        dense = next(entry for entry in front["baselines"] if entry["name"] == "fp32")
        assert dense["latency"]["ratio"] is not None
    milliseconds = [{t["number"]: t["latency"] for t in client.trials(job) if t["latency"]} for job in jobs]
    assert milliseconds[0]
    assert milliseconds[1]
    assert milliseconds[0] != milliseconds[1], "measured on each"
