"""kill -9 in mid-job: of a runner, a worker, the broker, and of everything at once. The job ends as if nothing was."""

import os
import signal
from pathlib import Path

import paretune
from tests.acceptance.conftest import Service
from tests.acceptance.conftest import wait_for

TRIALS = 10
WORKLOAD = {"batch": 1, "sequence_length": 16, "threads": 1}


def _ended(client: paretune.Client, job: paretune.types.Job) -> int:
    return sum(trial["state"] in {"complete", "rejected"} for trial in client.trials(job))


def test_kills_lose_and_repeat_nothing(service: Service, model_folder: Path, dataset_file: Path) -> None:
    with service.client() as client:
        model, data = client.upload_model(model_folder), client.upload_dataset(dataset_file)
        job = client.submit(
            model,
            data,
            budget_trials=TRIALS,
            budget_seconds=None,
            workload=WORKLOAD,
            strategy="direct",
            objective="p99",
        )
        for count, victim in enumerate(("workers.runner", "--queues compute", "valkey-server"), start=1):
            wait_for(lambda count=count: _ended(client, job) >= count, 120)
            wait_for(lambda victim=victim: service.pids(victim), 60)
            for pid in service.pids(victim):
                os.kill(pid, signal.SIGKILL)
        wait_for(lambda: _ended(client, job) >= 5, 120)
        before = {trial["digest"]: trial["state"] for trial in client.trials(job)}
        service.kill_everything()
        service.start()
        finished = client.wait(job, timeout=240)
        trials = list(client.trials(finished))
        assert [trial["number"] for trial in trials] == list(range(len(trials)))
        digests = [trial["digest"] for trial in trials]
        assert len(set(digests)) == len(digests)
        assert set(before) <= set(digests)
        assert {trial["state"] for trial in trials} <= {"complete", "rejected"}
        assert sum(trial["kind"] == "recipe" for trial in trials) == TRIALS
        front = client.front(finished)
        assert (front["status"], front["objective_name"]) == ("confirmed", "p99 latency")
        assert {trial["latency"]["objective"] for trial in trials if trial["latency"]} == {"p99"}


def test_ctrl_c_stops_everything(service: Service) -> None:
    family = service.family()
    assert service.stop() == 0
    assert not [process for process in family if process.is_running() and process.status() != "zombie"]
