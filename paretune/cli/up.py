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
) -> None:
    """Start the whole service on this machine: API, workers, broker, database. Ctrl-C stops it.

    Everything is kept in --home (default ~/.paretune). An interrupted job goes on at the next start.

    \b
    Examples:
      paretune up
      paretune up --home ./work --port 9000
    """
    environment = dict(os.environ)
    for name, value in {"PARETUNE_HOME": _absolute(home), "PARETUNE_PORT": port, "PARETUNE_HOST": host}.items():
        if value is not None:
            environment[name] = str(value)
    os.execve(sys.executable, [sys.executable, "-m", "infra.embedded"], environment)  # noqa: S606 - our own module


def _absolute(path: Path | None) -> Path | None:
    return path.expanduser().absolute() if path is not None else None
