"""One service at a time lives in a home, and what lies there is private."""

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra.database.engine import Database
from infra.database.models import ApiKey
from infra.embedded.home import exclusive_home
from infra.embedded.home import prepare_home
from infra.embedded.key import ensure_api_key
from infra.embedded.services import check_port
from infra.embedded.services import service_url
from infra.errors import ConflictError
from infra.settings import Settings
from infra.settings import broker_socket
from infra.settings import load_settings

HOLD = """
import sys, time
from infra.embedded.home import exclusive_home, prepare_home
from infra.settings import load_settings
settings = load_settings(home=sys.argv[1])
prepare_home(settings)
with exclusive_home(settings, "http://localhost:1"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def test_a_second_service_is_refused_until_the_first_is_gone(settings: Settings) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(settings.home)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ConflictError, match=rf"process {holder.pid}, http://localhost:1"):
        exclusive_home(settings, "http://localhost:2").__enter__()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with exclusive_home(settings, "http://localhost:2"):
        pass


def test_directories_are_private(settings: Settings) -> None:
    settings.home.mkdir(mode=0o755)
    for _ in range(2):
        prepare_home(settings)
    for directory in (settings.home, settings.logs, settings.work, broker_socket(settings.home).parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_a_directory_that_is_a_link_is_refused(settings: Settings, tmp_path: Path) -> None:
    settings.home.mkdir()
    (settings.home / "run").symlink_to(tmp_path)
    with pytest.raises(ConflictError, match="symbolic link"):
        prepare_home(settings)


def test_a_home_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConflictError, match="cannot be used"):
        prepare_home(load_settings(home=tmp_path / "file" / "home"))


def test_the_key_stays_as_long_as_it_works(settings: Settings) -> None:
    prepare_home(settings)
    database = Database(settings.database_url)
    ApiKey.metadata.create_all(database.engine)
    keys = []
    for _ in range(2):
        ensure_api_key(settings, database)
        keys.append(settings.api_key_file.read_text())
    settings.api_key_file.write_text("pt_unknown.secret\n")
    settings.api_key_file.chmod(0o644)
    ensure_api_key(settings, database)
    keys.append(settings.api_key_file.read_text())
    assert keys[0] == keys[1] != keys[2]
    assert stat.S_IMODE(settings.api_key_file.stat().st_mode) == 0o600
    database.dispose()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8765"),
        ("0.0.0.0", "http://127.0.0.1:8765"),
        ("::", "http://[::1]:8765"),
        ("localhost", "http://localhost:8765"),
    ],
)
def test_the_url_to_reach_the_service_at(host: str, url: str) -> None:
    assert service_url(load_settings(host=host)) == url


def test_an_address_of_another_machine_is_no_matter_of_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConflictError) as found:
            check_port(load_settings(home=tmp_path, host="127.0.0.1", port=port))
    assert "--port" in str(found.value.hint)
    with pytest.raises(ConflictError) as found:
        check_port(load_settings(home=tmp_path, host="192.0.2.1", port=port))
    assert "--host" in str(found.value.hint)
