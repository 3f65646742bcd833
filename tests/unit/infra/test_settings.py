"""Settings come from the environment once, and children get the same."""

from pathlib import Path

import pytest
from kombu.utils.url import url_to_parts
from pydantic import ValidationError

from infra.settings import broker_socket
from infra.settings import load_settings
from infra.store import open_store


def test_defaults_lie_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PARETUNE_HOME", str(tmp_path / "a home"))
    settings = load_settings()
    assert settings.database_url == f"sqlite:///{tmp_path}/a home/paretune.db"
    assert open_store(settings.store_url).path("0" * 64) is None
    assert (tmp_path / "a home" / "blobs").is_dir()
    assert settings.home.is_absolute()


def test_a_child_gets_the_same_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, devices=("a", "b"), lease_seconds=7.5, allow_server_paths=True)
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_settings_cannot_be_changed_and_do_not_show_secrets() -> None:
    settings = load_settings(database_url="postgresql://user:secret@host/db", broker_url="redis://:secret@host/0")
    with pytest.raises(ValidationError):
        settings.port = 1  # type: ignore[misc]
    assert "secret" not in repr(settings)


@pytest.mark.parametrize("length", [10, 300])
def test_the_brokers_socket_fits_into_an_address(tmp_path: Path, length: int) -> None:
    home = tmp_path / ("h" * 200) / ("x" * length) if length > 100 else tmp_path
    settings = load_settings(home=home)
    assert len(str(broker_socket(settings.home))) <= 100
    assert url_to_parts(settings.broker_url).path == f"{broker_socket(settings.home)}".lstrip("/")
    assert broker_socket(settings.home) != broker_socket(settings.home / "other")


@pytest.mark.parametrize("variable", ["PARETUNE_PORT=0", "PARETUNE_LEASE_SECONDS=-1", "PARETUNE_MAX_JSON_BYTES=x"])
def test_nonsense_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(*variable.split("="))
    with pytest.raises(ValidationError):
        load_settings()
