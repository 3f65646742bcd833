"""What a worker writes about the devices that it serves."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import select

from infra.database import migrate
from infra.database.engine import Database
from infra.database.models import Device
from infra.errors import UnavailableError
from infra.settings import load_settings
from profilers import registry
from profilers.backends.onnxruntime import OnnxRuntimeProfiler
from profilers.host_lock import HostLock
from profilers.types import DeviceProfile
from tests.helpers.rows import add_job
from workers import device_description
from workers import served_devices
from workers.device_description import look_at

BOARD = "board"


class BoardProfiler(OnnxRuntimeProfiler):
    """Boards with numbers; there is only the first, and the driver breaks at the third."""

    def device_facts(self, device: DeviceProfile) -> dict[str, Any]:
        if device.options.get("number", 0) == 2:
            raise OSError("libboard.so: undefined symbol")
        if device.options.get("number", 0) != 0:
            raise UnavailableError("The board is not connected.", hint="Plug it in.")
        return {"board": "rev C"}


@contextmanager
def boards() -> Iterator[None]:
    registry._BUILT_IN[BOARD] = f"{__name__}:{BoardProfiler.__name__}"
    try:
        yield
    finally:
        del registry._BUILT_IN[BOARD]
        registry.get_profiler.cache_clear()


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path))
    monkeypatch.setenv("PARETUNE_HOST_LOCK_DIRECTORY", str(tmp_path))
    settings = load_settings()
    migrate.upgrade(settings)
    database = Database(settings.database_url)
    with database.write_session() as session:
        session.add(Device(name="core-1", profiler="onnxruntime", options={"affinity": [1]}))
        session.add(Device(name="gone", profiler="no_such_plugin"))
    yield database
    database.dispose()


def row(database: Database, name: str) -> Device:
    with database.read_session() as session:
        return session.exec(select(Device).where(Device.name == name)).one()


def test_a_host_describes_what_it_can_measure_on_and_says_what_it_cannot(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    device_description.main(["core-1", "gone", "not-registered"])
    found = row(database, "core-1")
    assert found.capabilities["available"]
    assert found.capabilities["formats"] == ["onnx"]
    assert found.facts["cpu"]
    assert found.facts["versions"]["onnxruntime"]
    assert found.options == {"affinity": [1]}
    missing = row(database, "gone").capabilities
    assert (missing["available"], "no_such_plugin" in missing["reason"]) == (False, True)
    assert capsys.readouterr().out.splitlines()[0] == "core-1: available"


@pytest.mark.parametrize("embedded", [False, True])
def test_a_host_that_lacks_a_device_leaves_what_another_has_said(
    database: Database, monkeypatch: pytest.MonkeyPatch, *, embedded: bool
) -> None:
    with database.write_session() as session:
        session.add(Device(name="far", profiler="no_such_plugin", capabilities={"available": True}, facts={"cpu": "x"}))
    monkeypatch.setenv("PARETUNE_EMBEDDED", str(embedded))
    device_description.main(["far"])
    assert row(database, "far").capabilities["available"] is not embedded  # the only host knows better


def test_a_plugin_names_the_device_itself_or_says_that_it_is_not_there() -> None:
    with boards():
        first = look_at(DeviceProfile(name="b", profiler=BOARD))
        second = look_at(DeviceProfile(name="b", profiler=BOARD, options={"number": 1}))
    assert first.capabilities.available
    assert first.facts["board"] == "rev C"
    assert first.facts["cpu"]
    assert not second.capabilities.available
    assert second.capabilities.reason == "The board is not connected. Plug it in."


def test_a_plugin_that_breaks_leaves_the_other_devices_alone(
    database: Database, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with database.write_session() as session:
        session.add(Device(name="a-board", profiler=BOARD, options={"number": 2}))
    with boards():
        device_description.main(["a-board", "core-1"])
    assert row(database, "core-1").capabilities["available"]
    broken = row(database, "a-board").capabilities
    assert (broken["available"], broken["reason"]) == (False, f"The profiler {BOARD!r} fails: OSError.")
    assert "undefined symbol" in caplog.text
    assert capsys.readouterr().out.splitlines()[1] == "core-1: available"


def test_another_device_that_got_the_name_is_not_described_as_the_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced_meanwhile(profile: DeviceProfile) -> device_description.Description:
        found = look_at(profile)
        with database.write_session() as session:
            session.delete(session.exec(select(Device).where(Device.name == "core-1")).one())
        with database.write_session() as session:
            session.add(Device(name="core-1", profiler="onnxruntime", options={"affinity": [0]}))
        return found

    monkeypatch.setattr(device_description, "look_at", replaced_meanwhile)
    device_description.main(["core-1"])
    assert (row(database, "core-1").options, row(database, "core-1").capabilities) == ({"affinity": [0]}, {})


def test_nothing_is_looked_at_beside_a_measurement(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()
    monkeypatch.setattr(served_devices, "_describe", lambda _settings, _names: looked.set() or True)
    settings = load_settings()
    with HostLock(settings.host_lock_directory).exclusive(timeout=5):
        thread = served_devices.describe_at_start(settings, ["device.core-1"])
        assert thread is not None
        assert not looked.wait(0.3)
    thread.join(10)
    assert looked.is_set()


def test_a_worker_describes_the_devices_among_its_queues(database: Database) -> None:
    thread = served_devices.describe_at_start(load_settings(), ["search", "device.core-1", "device.not-registered"])
    assert thread is not None
    thread.join(60)
    assert row(database, "core-1").capabilities["available"]
    assert row(database, "gone").capabilities == {}
    assert served_devices.describe_at_start(load_settings(), ["compute", "search"]) is None


def test_a_device_that_is_described_is_not_looked_at_again(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[list[str]] = []
    monkeypatch.setattr(served_devices, "_tried", set())
    monkeypatch.setattr(served_devices, "_describe", lambda _settings, names: looked.append(names))
    with database.write_session() as session:
        first = add_job(session, device=row(database, "core-1")).id
        known_device = Device(name="known", profiler="p", capabilities={"available": True})
        session.add(known_device)
        known = add_job(session, device=known_device).id
    for job in (first, first, known):
        served_devices.describe_if_new(load_settings(), database, job)
    assert looked == [["core-1"]], "once, even if nothing came of it"
