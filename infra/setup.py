"""``python -m infra.setup``: make a new installation usable, or bring an old one up to date; run it before each start.

Migrates the database and makes sure that ``<home>/api-key`` holds a key that works. The embedded service does both by
itself.
"""

import sys

from infra.database import migrate
from infra.database.engine import Database
from infra.embedded.home import prepare_home
from infra.embedded.key import ensure_api_key
from infra.errors import ParetuneError
from infra.settings import Settings
from infra.settings import load_settings


def set_up(settings: Settings) -> None:
    """Do it; running it again changes nothing.

    Raises:
        ConflictError: The home cannot be used.
        UnavailableError: The database does not answer.
    """
    prepare_home(settings)
    migrate.upgrade(settings)
    database = Database(settings.database_url)
    try:
        ensure_api_key(settings, database)
    finally:
        database.dispose()


def main() -> int:
    """Run for the settings of the environment; returns the exit status."""
    settings = load_settings()
    try:
        set_up(settings)
    except ParetuneError as error:
        sys.stderr.write(f"{error.explain()}\n{error.hint}\n")
        return 1
    sys.stdout.write(f"The database is up to date; the API key is in {settings.api_key_file}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
