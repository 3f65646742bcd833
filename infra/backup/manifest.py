"""What a backup says about itself: ``manifest.json``, written last, so that a backup without one is not complete."""

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import ValidationError

from infra.errors import InvalidInputError
from infra.store.base import blob_key

_FILE = "manifest.json"


class StoredFile(BaseModel):
    """Bytes in a backup."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    size: int


class Manifest(BaseModel):
    """The table of contents of a backup."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    created_at: datetime
    database_kind: Literal["sqlite", "postgresql"]
    revision: str
    """Migration that the database had."""
    database: StoredFile | None
    """The SQLite file; ``None`` for PostgreSQL, which is dumped by its own tools."""
    api_key: bool
    """Whether the key of the embedded service is there."""
    blobs: list[StoredFile]

    @property
    def total_bytes(self) -> int:
        """Size of everything."""
        return sum(file.size for file in [*self.blobs, *([self.database] if self.database else [])])

    def write(self, directory: Path) -> None:
        """Complete the backup."""
        (directory / _FILE).write_text(self.model_dump_json(indent=1), encoding="utf-8")

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read the manifest of a backup.

        Raises:
            InvalidInputError: There is no complete backup, or a later version made it.
        """
        try:
            return cls.model_validate_json((directory / _FILE).read_bytes())
        except OSError as error:
            raise InvalidInputError(
                f"{directory} is not a complete backup: {_FILE} cannot be read ({error.strerror}).",
                hint="Give a directory that `paretune backup` has written to the end.",
            ) from error
        except ValidationError as error:
            raise InvalidInputError(
                f"{directory / _FILE} is damaged, or was written by another version.",
                hint="Use another backup, or restore with the version that made it.",
            ) from error


def database_file(directory: Path) -> Path:
    """Where a backup keeps the SQLite database."""
    return directory / "paretune.db"


def api_key_file(directory: Path) -> Path:
    """Where a backup keeps the key of the embedded service."""
    return directory / "api-key"


def blob_file(directory: Path, sha256: str) -> Path:
    """Where a backup keeps a blob."""
    return directory / "blobs" / blob_key(sha256)
