"""Messages get lost, come twice, workers and brokers are killed: every step is done, and finished once."""

import os
import signal
import time
from pathlib import Path

import pytest
import redis
from sqlmodel import select

from infra import relay
from infra.database.models import Device
from infra.database.models import Step
from infra.settings import broker_socket
from infra.steps import mark_dispatched
from tests.helpers.processes import gone
from tests.integration.platform.conftest import Cluster
from tests.integration.platform.conftest import wait_for


def lines(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    path = tmp_path / "hold"
    path.touch()
    return path


def test_follow_up_steps_run_without_waiting_for_the_maintenance_loop(cluster: Cluster) -> None:
    cluster.start_worker()
    cluster.maintenance._settings = cluster.settings.model_copy(update={"maintenance_seconds": 60.0})
    started = time.monotonic()
    first = cluster.add_step(chain=20)
    cluster.maintenance.relay()
    wait_for(lambda: len(cluster.finished()) == 21)
    assert time.monotonic() - started < 15
    assert len(set(cluster.finished())) == 21
    assert cluster.state(first) == "done"


def test_a_message_that_comes_five_times_is_worked_on_once(cluster: Cluster, log: Path) -> None:
    step_id = cluster.add_step(log=str(log))
    for _ in range(5):
        cluster.queue.dispatch(step_id, "compute")
    cluster.start_worker()
    cluster.start_worker()
    wait_for(lambda: cluster.queue.depth("compute") == 0)
    wait_for(lambda: cluster.state(step_id) == "done")
    assert len(lines(log)) == 1
    assert cluster.finished() == ["probe"]


@pytest.mark.parametrize("victim", ["child", "main"])
def test_the_step_of_a_killed_worker_runs_again_and_finishes_once(
    any_cluster: Cluster, log: Path, hold: Path, victim: str
) -> None:
    cluster = any_cluster
    worker = cluster.start_worker()
    step_id = cluster.add_step(log=str(log), hold=str(hold))
    wait_for(lambda: len(lines(log)) == 1)
    child = lines(log)[0]
    assert worker.pid is not None
    os.kill(child if victim == "child" else worker.pid, signal.SIGKILL)
    assert gone(child)
    if victim == "main":
        cluster.start_worker()
    wait_for(lambda: len(lines(log)) == 2)
    hold.unlink()
    wait_for(lambda: cluster.state(step_id) == "done")
    assert cluster.finished() == ["probe"]
    assert cluster.row(step_id).attempt == 2


def test_a_worker_that_is_told_to_stop_hands_its_step_to_another(cluster: Cluster, log: Path, hold: Path) -> None:
    worker = cluster.start_worker()
    step_id = cluster.add_step(log=str(log), hold=str(hold))
    wait_for(lambda: len(lines(log)) == 1)
    started = time.monotonic()
    worker.ask_to_stop()
    assert worker.wait(15)
    assert time.monotonic() - started < 10
    assert (cluster.state(step_id), cluster.row(step_id).attempt) == ("queued", 0)
    hold.unlink()
    cluster.start_worker()
    wait_for(lambda: cluster.state(step_id) == "done")
    assert len(lines(log)) == 2
    assert cluster.finished() == ["probe"]


def test_a_killed_broker_costs_nothing(cluster: Cluster, log: Path, hold: Path) -> None:
    cluster.start_worker()
    running = cluster.add_step("running", log=str(log), hold=str(hold))
    wait_for(lambda: len(lines(log)) == 1)
    waiting = cluster.add_step("waiting")
    wait_for(lambda: cluster.row(waiting).dispatched_at is not None)
    assert cluster.broker.pid is not None
    os.kill(cluster.broker.pid, signal.SIGKILL)
    assert cluster.broker.wait(5)
    meanwhile = cluster.add_step("meanwhile")
    hold.unlink()
    wait_for(lambda: cluster.state(running) == "done")
    assert cluster.row(meanwhile).dispatched_at is None
    cluster.start_broker()
    wait_for(lambda: cluster.state(waiting) == cluster.state(meanwhile) == "done", 60)
    assert sorted(cluster.finished()) == ["meanwhile", "running", "waiting"]


def test_flushing_the_broker_costs_nothing(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "_LOST_AFTER_SECONDS", 0.1)
    steps = [cluster.add_step(f"step{number}") for number in range(3)]
    wait_for(lambda: all(cluster.row(step_id).dispatched_at is not None for step_id in steps))
    with redis.Redis(unix_socket_path=str(broker_socket(cluster.settings.home))) as client:
        client.flushall()
    cluster.start_worker()
    wait_for(lambda: [cluster.state(step_id) for step_id in steps] == ["done"] * 3)
    assert sorted(cluster.finished()) == ["step0", "step1", "step2"]


def test_a_worker_that_starts_describes_the_device_that_it_serves(cluster: Cluster) -> None:
    with cluster.database.write_session() as session:
        session.add(Device(name="core-1", profiler="onnxruntime"))

    def device() -> Device:
        with cluster.database.read_session() as session:
            return session.exec(select(Device).where(Device.name == "core-1")).one()

    cluster.start_worker("device.core-1")
    wait_for(lambda: device().capabilities)
    assert device().capabilities["available"]
    assert device().facts["cpu"]


def test_high_priority_is_served_first(cluster: Cluster) -> None:
    jobs = []
    for priority in (1, 9, 5):
        step_id = cluster.add_step(f"priority{priority}")
        with cluster.database.write_session() as session:
            session.get_one(Step, step_id).priority = priority
        cluster.queue.dispatch(step_id, "compute")
        jobs.append(step_id)
    with cluster.database.write_session() as session:
        mark_dispatched(session, jobs)
    cluster.start_worker()
    wait_for(lambda: len(cluster.finished()) == 3)
    assert cluster.finished() == ["priority9", "priority5", "priority1"]
