"""Make a backup of a service, which may be running."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from sqlmodel import select

from infra.backup.manifest import Manifest
from infra.backup.manifest import StoredFile
from infra.backup.manifest import api_key_file
from infra.backup.manifest import blob_file
from infra.backup.manifest import database_file
from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.engine import database_url
from infra.database.migrate import current_revision
from infra.database.models import Blob
from infra.embedded.home import write_private
from infra.errors import ConflictError
from infra.errors import NotFoundError
from infra.errors import UnavailableError
from infra.garbage import needed_blobs
from infra.settings import Settings
from infra.store.base import BlobStore
from infra.store.base import copy_and_hash
from infra.store.open import open_store

Progress = Callable[[int, int], None]
"""Called with the number of blobs copied and of all."""

_ATTEMPTS = 3


class _BlobGoneError(Exception):
    """A blob was collected while the backup was made."""


def create_backup(settings: Settings, directory: Path, progress: Progress = lambda _done, _all: None) -> Manifest:
    """Write database, blobs and the embedded service's key into a directory that only this user can read.

    The service may go on meanwhile: the copy of a SQLite database is of one moment (its online backup), and blobs never
    change. Every blob is verified by its hash, and no backup is left behind that lacks something.

    Args:
        settings: Where database and store are.
        directory: Must not exist, or be empty.
        progress: For those who wait.

    Raises:
        ConflictError: The directory is in use or lies in the home, or the database does not fit the store.
        NotFoundError: There is no database to save.
        UnavailableError: Database, store or disk are not available, or a blob is damaged.
    """
    _check_place(settings, directory)
    for attempt in range(1, _ATTEMPTS + 1):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        try:
            return _create(settings, directory, progress)
        except _BlobGoneError as error:
            _clear(directory)
            if attempt == _ATTEMPTS:
                raise ConflictError(
                    f"The artifact store lacks the blob {error}, which the database needs: no backup was made.",
                    hint="Restore it from an earlier backup, or delete the job, model or dataset that it belongs to.",
                ) from None
        except BaseException:
            _clear(directory)
            raise
    raise AssertionError("every attempt returns or raises")


def _create(settings: Settings, directory: Path, progress: Progress) -> Manifest:
    url = database_url(settings.database_url)
    kind = url.get_backend_name()
    saved = settings
    file = None
    if kind == "sqlite":
        assert url.database is not None
        copy = database_file(directory)
        _copy_sqlite(Path(url.database), copy)
        saved = settings.model_copy(update={"database_url": f"sqlite:///{copy}"})
    blobs = _copy_blobs(saved, open_store(settings.store_url), directory, progress)
    if kind == "sqlite":
        file = _stored(_as_single_file(database_file(directory)))
    has_key = settings.api_key_file.exists()
    if has_key:
        write_private(api_key_file(directory), settings.api_key_file.read_text(encoding="utf-8"))
    manifest = Manifest(
        created_at=utcnow(),
        database_kind="sqlite" if kind == "sqlite" else "postgresql",
        revision=current_revision(settings),
        database=file,
        api_key=has_key,
        blobs=blobs,
    )
    manifest.write(directory)
    return manifest


def _check_place(settings: Settings, directory: Path) -> None:
    if directory.resolve().is_relative_to(settings.home.resolve()):
        raise ConflictError(
            f"{directory} lies in the home {settings.home} and would be lost with it.",
            hint="Choose a directory elsewhere, on another disk.",
        )
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConflictError(f"{directory} is not empty.", hint="Give a new directory for every backup.")


def _copy_sqlite(source: Path, target: Path) -> None:
    if not source.is_file():
        raise NotFoundError(f"There is no database {source}.", hint="Name the home of the service with --home.")
    try:
        with closing(sqlite3.connect(source, timeout=10)) as live, closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            found = [row[0] for row in copy.execute("PRAGMA integrity_check")]
            broken = copy.execute("PRAGMA foreign_key_check").fetchall()
    except sqlite3.Error as error:
        raise UnavailableError(
            f"The database {source} cannot be copied: {error}.", hint="Restore it from an earlier backup."
        ) from error
    target.chmod(0o600)
    if found != ["ok"] or broken:
        raise ConflictError(
            f"The database {source} is damaged: {[*found, *broken][:3]}.", hint="Restore it from an earlier backup."
        )


def _as_single_file(path: Path) -> Path:
    """Put what SQLite keeps beside the file into it."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    return path


def _copy_blobs(settings: Settings, store: BlobStore, directory: Path, progress: Progress) -> list[StoredFile]:
    database = Database(settings.database_url)
    try:
        with database.read_session() as session:
            sizes = {blob.sha256: blob.size for blob in session.exec(select(Blob))}
            needed = needed_blobs(session)
    finally:
        database.dispose()
    copied = []
    for number, sha256 in enumerate(sorted(needed), start=1):
        if sha256 not in sizes:
            raise _BlobGoneError(sha256)
        copied.append(_copy_blob(store, sha256, blob_file(directory, sha256)))
        progress(number, len(needed))
    return copied


def _copy_blob(store: BlobStore, sha256: str, target: Path) -> StoredFile:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with store.open(sha256) as stream, target.open("wb") as file:
            found = copy_and_hash(stream, file)
    except NotFoundError:
        raise _BlobGoneError(sha256) from None
    except OSError as error:
        raise UnavailableError(
            f"{target} cannot be written: {error.strerror}.", hint="Free some disk space."
        ) from error
    if found.sha256 != sha256:
        raise UnavailableError(
            f"The blob {sha256} is damaged in the artifact store: its bytes have the hash {found.sha256}.",
            hint="Restore it from an earlier backup, or delete the job, model or dataset that it belongs to.",
        )
    return StoredFile(sha256=found.sha256, size=found.size)


def _stored(path: Path) -> StoredFile:
    with path.open("rb") as stream:
        ref = copy_and_hash(stream, None)
    return StoredFile(sha256=ref.sha256, size=ref.size)


def _clear(directory: Path) -> None:
    for entry in directory.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
