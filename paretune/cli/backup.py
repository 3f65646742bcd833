"""``paretune backup`` and ``paretune restore``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from paretune.cli import options


def backup(
    directory: Annotated[Path, typer.Argument(help="New directory for the backup, outside of the home.")],
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """Save the service of this machine: database, models, data, results, API key. It may go on running.

    Every byte is verified by its hash; a backup that would lack something is refused. With PostgreSQL, run pg_dump
    first: see the operations guide.

    \b
    Examples:
      paretune backup /mnt/backups/monday
      paretune backup /mnt/backups/monday --home ./work
    """
    _run("create", directory, home, as_json=as_json)


def restore(
    directory: Annotated[Path, typer.Argument(help="A directory that `paretune backup` wrote.")],
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """Bring a backup back into a new home. Then start it: `paretune up --home HOME`.

    \b
    Example:
      paretune restore /mnt/backups/monday --home ./new-home
    """
    _run("restore", directory, home, as_json=as_json)


def _run(action: str, directory: Path, home: Path | None, *, as_json: bool) -> None:
    environment = dict(os.environ)
    if home is not None:
        environment["PARETUNE_HOME"] = str(home.expanduser().absolute())
    command = [sys.executable, "-m", "infra.backup", action, str(directory.expanduser().absolute())]
    os.execve(sys.executable, command + ["--json"] * as_json, environment)  # noqa: S606 - our own module
