"""The deployment files name what exists: settings, programs, files, and versions that are pinned."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import yaml
from celery.bin.celery import celery as celery_command
from click.testing import CliRunner
from packaging.specifiers import SpecifierSet

from api.app import create_app
from infra.database.engine import database_url as parse_url
from infra.queue import _checked
from infra.settings import Settings
from infra.settings import load_settings
from infra.setup import set_up
from workers import local_devices

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "paretune"}
DOCKERFILE = (ROOT / "infra/deploy/Dockerfile").read_text()


MORE_HOSTS: dict[str, Any] = yaml.safe_load((ROOT / "infra/deploy/more-hosts.yml").read_text())
EXAMPLE = (ROOT / ".env.example").read_text()
PASSWORDS = {"POSTGRES_PASSWORD": "secret", "VALKEY_PASSWORD": "secret"}


def substituted(text: str, given: Mapping[str, str] = PASSWORDS) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?message}`` as Compose does, the innermost first."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        assert given.get(name) or operator == ":-", f"{name} is required"
        return given.get(name) or str(rest)

    while (replaced := re.sub(r"\$\{(\w+)(?:(:-|:\?)([^${}]*))?\}", value, text)) != text:
        text = replaced
    return text


def environment(name: str, given: Mapping[str, str] = PASSWORDS) -> dict[str, str]:
    """The variables of a service of ours."""
    return {key: substituted(str(value), given) for key, value in OURS[name]["environment"].items()}


def test_the_parts_of_the_service_are_there() -> None:
    workers = {"search-worker", "compute-worker", "device-worker", "gpu-worker", "maintenance"}
    assert set(SERVICES) == {"postgres", "valkey", "setup", "devices", "gpu-devices", "api", *workers}
    assert SERVICES["postgres"]["image"] == "postgres:18"
    assert SERVICES["valkey"]["image"] == "valkey/valkey:9.1"


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_has_a_value_that_is_allowed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(name)
    assert {key.removeprefix("PARETUNE_").lower() for key in variables} <= set(Settings.model_fields)
    for key, value in variables.items():
        monkeypatch.setenv(key, value)
    settings = load_settings()
    assert parse_url(settings.database_url).host == "postgres"
    assert settings.broker_url == "redis://:secret@valkey:6379/0"
    assert settings.store_url.startswith("file:///var/lib/paretune/")


@pytest.mark.parametrize("name", OURS)
def test_every_setting_and_the_credentials_of_any_store_come_from_one_file(name: str) -> None:
    """A variable that is named here and not given would be empty, which is not the same as none for an object store."""
    assert OURS[name]["env_file"] == [{"path": ".env", "required": False}]
    assert all(environment(name).values())
    elsewhere = {
        "PARETUNE_DATABASE_URL": "postgresql://paretune:secret@10.0.0.5:5432/paretune",
        "PARETUNE_BROKER_URL": "redis://:secret@10.0.0.5:6379/0",
        "PARETUNE_STORE_URL": "s3://bucket/prefix",
    }
    found = environment(name, PASSWORDS | elsewhere | {"PARETUNE_PORT": "9000"})
    assert elsewhere.items() <= found.items()
    assert found["PARETUNE_PORT"] == "8765"  # the other one is of the host


def test_the_example_of_that_file(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE)
    assert {name for name, value in lines if not value} == {*PASSWORDS, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    for name, value in lines:
        if name.startswith("PARETUNE_"):
            assert name.removeprefix("PARETUNE_").lower() in Settings.model_fields
            monkeypatch.setenv(name, value.strip("'"))
    settings = load_settings()
    assert {"localhost", "127.0.0.1"} < set(settings.allowed_hosts)
    assert settings.tracing
    given = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text() + str(MORE_HOSTS)))
    assert given <= {name for name, _ in lines}
    assert ".env" in (ROOT / ".gitignore").read_text().split()


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
        queues = substituted(arguments[arguments.index("--queues") + 1])
        assert [_checked(queue) for queue in queues.split(",")]
        result = CliRunner().invoke(celery_command, [*arguments, "--help"])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", OURS)
def test_containers_have_as_few_rights_as_possible(name: str) -> None:
    service = OURS[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:")


def test_ours_reach_an_object_store_and_nobody_reaches_the_database() -> None:
    assert COMPOSE["networks"] == {"internal": {"internal": True}, "outside": None}
    for name, service in SERVICES.items():
        assert service["networks"] == (["internal", "outside"] if name in OURS else ["internal"])
        assert "ports" not in service or name == "api"


def test_other_hosts_reach_database_and_broker_at_the_address_that_was_chosen() -> None:
    assert set(MORE_HOSTS["services"]) == {"postgres", "valkey"}
    for service, port in zip(MORE_HOSTS["services"].values(), ("5432", "6379"), strict=True):
        assert service["networks"] == ["internal", "outside"]
        assert [substituted(text, {"PRIVATE_ADDRESS": "10.0.0.5"}) for text in service["ports"]] == [
            f"10.0.0.5:{port}:{port}"
        ]
        with pytest.raises(AssertionError, match="is required"):
            substituted(service["ports"][0], {})


def test_the_gpu_is_described_by_who_sees_it() -> None:
    gpu = [name for name, service in OURS.items() if "deploy" in service]
    assert gpu == ["gpu-devices", "gpu-worker"]
    assert all(OURS[name]["profiles"] == ["gpu"] for name in gpu)
    program, option, module, *names = OURS["gpu-devices"]["command"]
    assert (program, option, module) == ("python", "-m", local_devices.__name__)
    assert names == ["local-cuda"]
    assert set(names) <= set(local_devices.LOCAL_DEVICES)


@pytest.mark.parametrize("hosts", [None, '["a.example.org", "localhost", "127.0.0.1"]', '["a.example.org"]'])
def test_the_health_check_asks_by_a_name_that_the_api_answers_to(hosts: str | None, tmp_path: Path) -> None:
    given = PASSWORDS | ({"PARETUNE_ALLOWED_HOSTS": hosts} if hosts else {})
    allowed = environment("api", given)["PARETUNE_ALLOWED_HOSTS"]
    settings = load_settings(home=tmp_path, allowed_hosts=json.loads(allowed))
    set_up(settings)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        kind, program, option, code = OURS["api"]["healthcheck"]["test"]
        assert (kind, program, option) == ("CMD", "python", "-c")
        assert ":8765/" in code
        variables = {"PATH": os.environ["PATH"], "PARETUNE_ALLOWED_HOSTS": allowed}
        command = [sys.executable, "-c", code.replace(":8765/", f":{port}/")]
        subprocess.run(command, env=variables, check=True)
    finally:
        server.should_exit = True
        thread.join(10)


def test_what_is_referred_to_is_declared() -> None:
    """What ``docker compose config`` would refuse."""
    for name, service in SERVICES.items():
        for other, awaited in service.get("depends_on", {}).items():
            assert awaited["condition"] != "service_healthy" or "healthcheck" in SERVICES[other], (name, other)
            assert not SERVICES[other].get("profiles"), f"{name} waits for what may not run"
        assert {volume.split(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])


def test_every_queue_has_a_worker_and_every_port_is_the_same() -> None:
    commands = [service["command"] for service in OURS.values() if service["command"][0] == "celery"]
    queues = [queue for it in commands for queue in substituted(it[it.index("--queues") + 1]).split(",")]
    devices = Settings.model_fields["devices"].default
    assert sorted(queues) == sorted(["search", "compute", *(f"device.{name}" for name in devices)])
    port = str(Settings.model_fields["port"].default)
    api = OURS["api"]
    assert environment("api")["PARETUNE_PORT"] == api["command"][-1] == port
    assert [substituted(text) for text in api["ports"]] == [f"127.0.0.1:{port}:{port}"]
    assert f":{port}/" in api["healthcheck"]["test"][-1]
    assert re.findall(r"EXPOSE (\d+)|--port\", \"(\d+)", DOCKERFILE) == [(port, ""), ("", port)]
    assert f"PARETUNE_PORT={port}" in EXAMPLE


def test_the_home_of_the_image_is_the_volume_and_workers_have_time_to_stop() -> None:
    home = re.search(r"PARETUNE_HOME=(\S+)", DOCKERFILE)
    assert home is not None
    assert f"VOLUME {home[1]}" in DOCKERFILE
    assert all(service["volumes"] == [f"home:{home[1]}"] for service in OURS.values())
    grace = {service["stop_grace_period"] for service in OURS.values()}
    assert min(int(text.removesuffix("s")) for text in grace) > 2 * Settings.model_fields["shutdown_seconds"].default
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    versions = set(re.findall(r"^FROM python:([\d.]+)-slim", DOCKERFILE, re.MULTILINE))
    assert len(versions) == 1
    assert SpecifierSet(wanted).contains(versions.pop())


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
    installed = re.search(r"'\.\[([\w,]+)\]'", DOCKERFILE)
    assert installed is not None
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert {"postgres", "s3", "otel"} <= set(installed[1].split(",")) <= extras
    assert re.search(r"^USER paretune$", DOCKERFILE, re.MULTILINE)
    assert str(OURS["api"]["command"][1]) in DOCKERFILE


def test_set_up_twice(database_url: str, tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path / "home", database_url=database_url)
    set_up(settings)
    key = settings.api_key_file.read_text()
    set_up(settings)
    assert settings.api_key_file.read_text() == key
