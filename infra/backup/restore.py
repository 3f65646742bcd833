"""Bring a backup back."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from infra.backup.manifest import Manifest
from infra.backup.manifest import StoredFile
from infra.backup.manifest import api_key_file
from infra.backup.manifest import blob_file
from infra.backup.manifest import database_file
from infra.database.engine import Database
from infra.database.engine import database_url
from infra.database.migrate import is_known
from infra.embedded.home import exclusive_home
from infra.embedded.home import prepare_home
from infra.embedded.home import write_private
from infra.errors import ConflictError
from infra.errors import InvalidInputError
from infra.garbage import needed_blobs
from infra.settings import Settings
from infra.store.base import BlobStore
from infra.store.base import copy_and_hash
from infra.store.open import open_store

Progress = Callable[[int, int], None]


def restore_backup(settings: Settings, directory: Path, progress: Progress = lambda _done, _all: None) -> Manifest:
    """Make the service of ``settings`` what it was when the backup was made.

    Everything is verified by its hash. The database comes last: a restore that was interrupted leaves no service that
    lacks something, and can be run again.

    With PostgreSQL the database is restored before, by ``pg_restore``; here the store gets all that it needs.

    Args:
        settings: Where database and store are; a SQLite database must not exist yet.
        directory: A complete backup.
        progress: For those who wait.

    Raises:
        InvalidInputError: The backup is incomplete or damaged, or of a later version or another kind of database.
        ConflictError: The home is in use or has a database already.
        UnavailableError: Database, store or disk are not available.
    """
    manifest = Manifest.read(directory)
    url = database_url(settings.database_url)
    if url.get_backend_name() != manifest.database_kind:
        raise InvalidInputError(
            f"The backup is of a {manifest.database_kind} database, the settings name {url.get_backend_name()}.",
            hint="Set PARETUNE_DATABASE_URL to a database of the same kind.",
        )
    if not is_known(manifest.revision):
        raise InvalidInputError(
            f"The backup was made by a later version (database revision {manifest.revision}).",
            hint="Install that version, then restore.",
        )
    prepare_home(settings)
    with exclusive_home(settings, "a restore"):
        if manifest.database is not None and url.database is not None and Path(url.database).exists():
            raise ConflictError(
                f"There is a database already: {url.database}.", hint="Restore into a new home: --home DIRECTORY."
            )
        store = open_store(settings.store_url)
        for number, blob in enumerate(manifest.blobs, start=1):
            _restore_blob(store, blob, blob_file(directory, blob.sha256))
            progress(number, len(manifest.blobs))
        if manifest.api_key:
            write_private(settings.api_key_file, _read_key(directory))
        if manifest.database is not None:
            assert url.database is not None
            _restore_sqlite(database_file(directory), manifest.database, Path(url.database))
        else:
            _check_store(settings, store)
    return manifest


def _restore_blob(store: BlobStore, blob: StoredFile, path: Path) -> None:
    if not path.is_file() or path.stat().st_size != blob.size:
        raise _damaged(path)
    try:
        store.put(path, expected_sha256=blob.sha256)
    except InvalidInputError:
        raise _damaged(path) from None


def _restore_sqlite(source: Path, expected: StoredFile, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with source.open("rb") as stream, temporary.open("wb") as file:
            temporary.chmod(0o600)
            found = copy_and_hash(stream, file)
            file.flush()
            os.fsync(file.fileno())
        if found.sha256 != expected.sha256:
            raise _damaged(source)
        with closing(sqlite3.connect(temporary)) as connection:
            if connection.execute("PRAGMA integrity_check").fetchone() != ("ok",):
                raise _damaged(source)
        temporary.replace(target)
    except FileNotFoundError:
        raise _damaged(source) from None
    finally:
        temporary.unlink(missing_ok=True)


def _read_key(directory: Path) -> str:
    try:
        return api_key_file(directory).read_text(encoding="utf-8")
    except OSError:
        raise _damaged(api_key_file(directory)) from None


def _check_store(settings: Settings, store: BlobStore) -> None:
    database = Database(settings.database_url)
    try:
        with database.read_session() as session:
            missing = sorted(sha256 for sha256 in needed_blobs(session) if not store.exists(sha256))
    finally:
        database.dispose()
    if missing:
        raise ConflictError(
            f"The database needs {len(missing)} blobs that neither store nor backup have, such as {missing[0]}.",
            hint="Restore the dump that was made just before this backup, or a later backup of the store.",
        )


def _damaged(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"The backup is damaged: {path} is missing or has other bytes.", hint="Use another backup."
    )
