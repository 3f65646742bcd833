"""``python -m infra.embedded``: run the embedded service in the foreground."""

import argparse
import sys
from pathlib import Path
from typing import Any

from infra.embedded.supervisor import Supervisor
from infra.errors import ParetuneError
from infra.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m infra.embedded", description=__doc__)
    parser.add_argument("--home", type=Path, help="where everything is kept (default: PARETUNE_HOME or ~/.paretune)")
    parser.add_argument("--host", help="address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen at (default: 8765)")
    parser.add_argument(
        "--allow-server-paths",
        action="store_true",
        default=None,
        help="let models be registered by a path on this machine",
    )
    given: dict[str, Any] = {
        name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None
    }
    try:
        return Supervisor(load_settings(embedded=True, **given)).run()
    except ParetuneError as error:
        sys.stderr.write(f"{error.explain()}\n{error.hint}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
