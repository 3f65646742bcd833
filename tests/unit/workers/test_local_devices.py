"""The devices of a host are described by the host that has them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import select

from infra.database import migrate
from infra.database.engine import Database
from infra.database.models import Device
from infra.settings import Settings
from infra.settings import load_settings
from profilers.backends.onnxruntime import OnnxRuntimeProfiler
from profilers.backends.torch_cuda import TorchCudaProfiler
from profilers.registry import get_profiler
from profilers.types import Capabilities
from workers import local_devices
from workers.local_devices import register_local_devices

ELSEWHERE = {"available": True, "reason": "described by the host with the GPU"}

pytestmark = pytest.mark.skipif(get_profiler("torch_cuda").describe().available, reason="this host has a GPU")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path))
    settings = load_settings()
    migrate.upgrade(settings)
    return settings


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    """Another host has registered its GPU."""
    database = Database(settings.database_url)
    with database.write_session() as session:
        session.add(Device(name="local-cuda", profiler="torch_cuda", capabilities=ELSEWHERE, facts={}))
    yield database
    database.dispose()


def described(database: Database) -> dict[str, bool]:
    with database.read_session() as session:
        return {row.name: row.capabilities["available"] for row in session.exec(select(Device))}


def test_a_host_without_a_gpu_leaves_the_gpu_of_another_one(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    local_devices.main([])
    assert described(database)["local-cpu"]
    assert described(database)["local-cuda"]
    printed = capsys.readouterr().out.splitlines()
    assert "local-cpu: registered" in printed
    assert any(line.startswith("local-cuda: not available on this host: ") for line in printed)


def test_the_only_host_says_when_a_device_is_gone(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_EMBEDDED", "true")
    local_devices.main([])
    assert described(database)["local-cuda"] is False


def test_the_service_starts_without_the_plugin_that_breaks(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_self: object) -> None:
        raise RuntimeError("the driver is broken")

    monkeypatch.setattr(OnnxRuntimeProfiler, "describe", broken)
    monkeypatch.setattr(TorchCudaProfiler, "describe", lambda _self: Capabilities(profiler="p", available=True))
    monkeypatch.setattr(TorchCudaProfiler, "device_facts", broken)
    with database.write_session() as session:
        session.exec(select(Device)).one().facts = {"gpu": "H200"}
    found = register_local_devices(database, only_host=True)
    assert found["local-cpu"].reason == "The profiler 'onnxruntime' fails: RuntimeError."
    assert found["local-cuda"].available, "its runtime is left to the worker"
    with database.read_session() as session:
        facts = session.exec(select(Device).where(Device.name == "local-cuda")).one().facts
    assert facts["gpu"] == "H200"
    assert facts["cpu"]
    assert not register_local_devices(database, only_host=False, names=["local-cuda"])["local-cuda"].available


def test_only_the_named_devices_are_looked_at(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    local_devices.main(["local-cpu"])
    assert described(database) == {"local-cuda": True, "local-cpu": True}
    with pytest.raises(SystemExit):
        local_devices.main(["local-tpu"])
    assert "'local-tpu' is not one of local-cpu, local-openvino, local-cuda" in capsys.readouterr().err
