"""``paretune up``."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from paretune.cli.options import Home


def up(
    home: Home = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="TCP port; 8765 by default.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at; only this machine by default.")] = None,
    allow_server_paths: Annotated[
        bool, typer.Option("--allow-server-paths", help="Let models be given by a path on this machine.")
    ] = False,
) -> None:
    """Start the whole service on this machine: API, workers, broker, database. Ctrl-C stops it.

    Everything is kept in --home (default ~/.paretune). An interrupted job goes on at the next start.

    \b
    Examples:
      paretune up
      paretune up --home ./work --port 9000
    """
    given = {
        "PARETUNE_HOME": _absolute(home),
        "PARETUNE_PORT": port,
        "PARETUNE_HOST": host,
        "PARETUNE_ALLOW_SERVER_PATHS": "true" if allow_server_paths else None,
    }
    environment = dict(os.environ) | {name: str(value) for name, value in given.items() if value is not None}
    os.execve(sys.executable, [sys.executable, "-m", "infra.embedded"], environment)  # noqa: S606 - our own module


def _absolute(path: Path | None) -> Path | None:
    return path.expanduser().absolute() if path is not None else None
