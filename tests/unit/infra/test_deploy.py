"""The deployment files name what exists: settings, programs, files, and versions that are pinned."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery.bin.celery import celery as celery_command
from click.testing import CliRunner

from infra.database.engine import database_url as parse_url
from infra.queue import _checked
from infra.settings import Settings
from infra.settings import load_settings
from infra.setup import set_up

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "paretune"}
DOCKERFILE = (ROOT / "infra/deploy/Dockerfile").read_text()


def substituted(text: str) -> str:
    """Replace ``${NAME:-default}`` and ``${NAME:?message}`` as Compose would, with ``secret`` where it is required."""
    text = re.sub(r"\$\{\w+:\?[^}]*\}", "secret", text)
    return re.sub(r"\$\{\w+:-(.*?)\}(?!\])", r"\1", text)


def test_the_parts_of_the_service_are_there() -> None:
    assert set(SERVICES) == {
        *(
            "postgres",
            "valkey",
            "setup",
            "devices",
            "api",
            "search-worker",
            "compute-worker",
            "device-worker",
            "gpu-worker",
        ),
        "maintenance",
    }
    assert SERVICES["postgres"]["image"] == "postgres:18"
    assert SERVICES["valkey"]["image"] == "valkey/valkey:9.1"


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_has_a_value_that_is_allowed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {key: substituted(str(value)) for key, value in OURS[name]["environment"].items()}
    ours = {key: value for key, value in environment.items() if not key.startswith("AWS_")}
    assert {key.removeprefix("PARETUNE_").lower() for key in ours} <= set(Settings.model_fields)
    for key, value in ours.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    assert parse_url(settings.database_url).host == "postgres"
    assert settings.broker_url == "redis://:secret@valkey:6379/0"
    assert settings.store_url.startswith("file:///var/lib/paretune/")


@pytest.mark.parametrize("name", OURS)
def test_every_command_can_be_started(name: str) -> None:
    program, *arguments = OURS[name]["command"]
    if program == "python":
        assert arguments[0] == "-m"
        assert importlib.util.find_spec(arguments[1]) is not None
    elif program == "uvicorn":
        module, function = arguments[0].split(":")
        assert hasattr(importlib.import_module(module), function)
    else:
        assert program == "celery"
        queues = arguments[arguments.index("--queues") + 1]
        assert [_checked(queue) for queue in queues.split(",")]
        result = CliRunner().invoke(celery_command, [*arguments, "--help"])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", OURS)
def test_containers_have_as_few_rights_as_possible(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["networks"] == (["internal", "outside"] if name == "api" else ["internal"])
    assert COMPOSE["networks"]["internal"]["internal"] is True
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


def test_workers_wait_for_the_migrations() -> None:
    for name, service in OURS.items():
        if name != "setup":
            assert service["depends_on"]["setup"]["condition"] == "service_completed_successfully"


def test_the_image_is_made_of_files_that_exist_and_runs_without_root() -> None:
    copied = [path for line in re.findall(r"^COPY (?!--)(.*) \S+$", DOCKERFILE, re.MULTILINE) for path in line.split()]
    assert {"pyproject.toml", "infra", "workers"} <= set(copied)
    assert [path for path in copied if not (ROOT / path).exists()] == []
    ignored = (ROOT / "infra/deploy/Dockerfile.dockerignore").read_text().split()
    assert {f"!{path}" for path in copied} <= set(ignored)
    assert re.search(r"^USER paretune$", DOCKERFILE, re.MULTILINE)
    assert str(OURS["api"]["command"][1]) in DOCKERFILE


def test_set_up_twice(database_url: str, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", database_url=database_url)
    set_up(settings)
    key = settings.api_key_file.read_text()
    set_up(settings)
    assert settings.api_key_file.read_text() == key
