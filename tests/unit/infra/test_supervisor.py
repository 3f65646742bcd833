"""What the supervisor of the embedded service does when describing devices goes wrong."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.embedded import supervisor
from infra.embedded.home import prepare_home
from infra.embedded.process import ManagedProcess
from infra.embedded.supervisor import Supervisor
from infra.errors import UnavailableError
from infra.settings import Settings
from infra.settings import load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = load_settings(home=tmp_path / "home", broker_url="redis://127.0.0.1:9")
    prepare_home(settings)
    return settings


@pytest.fixture
def service(settings: Settings) -> Iterator[Supervisor]:
    service = Supervisor(settings)
    yield service
    service._stop()


def test_it_starts_when_devices_cannot_be_described(
    service: Supervisor, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_settings: Settings) -> None:
        raise UnavailableError("The devices cannot be described.", hint="Look why.")

    monkeypatch.setattr(supervisor, "register_local_devices", fail)
    monkeypatch.setattr(supervisor, "service_processes", lambda *_arguments: [])
    service._start()
    assert settings.url_file.exists()
    said = capsys.readouterr().out
    assert "The devices cannot be described. Look why. The devices that are known from before are served." in said


def test_it_does_not_wait_for_the_description_of_a_new_device(
    service: Supervisor, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hang(settings: Settings, name: str) -> ManagedProcess:
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        log = settings.logs / "devices.log"
        return ManagedProcess(f"description of {name}", command, environment={}, log=log, ready=lambda: True)

    monkeypatch.setattr(supervisor, "device_description", hang)
    service._undescribed = ["first", "second"]
    started = time.monotonic()
    service._describe_new_devices()
    service._describe_new_devices()
    assert time.monotonic() - started < 10
    first = service._description
    assert first is not None
    assert (first.name, service._undescribed) == ("description of first", ["second"])
    first.kill()
    service._describe_new_devices()
    assert "the description of first failed" in caplog.text
    second = service._description
    assert second is not None
    assert second.name == "description of second"
    service._stop()
    assert not second.alive
