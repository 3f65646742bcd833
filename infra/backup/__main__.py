"""``python -m infra.backup create|restore DIRECTORY``: what ``paretune backup`` and ``paretune restore`` run."""

import argparse
import json
import sys
import time
from pathlib import Path

from infra.backup.create import create_backup
from infra.backup.manifest import Manifest
from infra.backup.restore import restore_backup
from infra.database.engine import database_url
from infra.errors import ParetuneError
from infra.settings import Settings
from infra.settings import load_settings

_PROGRESS_SECONDS = 1.0


def main() -> int:
    """Run for the settings of the environment; returns the exit status: 0, 1 (not available) or 2 (cannot be done)."""
    parser = argparse.ArgumentParser(description="Make or restore a backup.")
    parser.add_argument("action", choices=("create", "restore"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    settings = load_settings()
    directory: Path = arguments.directory.absolute()
    try:
        make = create_backup if arguments.action == "create" else restore_backup
        manifest = make(settings, directory, _Progress())
    except ParetuneError as error:
        if arguments.json:
            sys.stdout.write(json.dumps({"error": error.to_dict()}) + "\n")
        else:
            sys.stderr.write(f"{error.explain()}\nWhat to do: {error.hint}\n")
        return 1 if error.status >= 500 else 2
    if arguments.json:
        facts = manifest.model_dump(mode="json", exclude={"blobs"})
        sys.stdout.write(json.dumps(facts | {"directory": str(directory), "blobs": len(manifest.blobs)}) + "\n")
    else:
        sys.stdout.write(_report(arguments.action, settings, directory, manifest))
    return 0


def _report(action: str, settings: Settings, directory: Path, manifest: Manifest) -> str:
    size = f"{len(manifest.blobs)} blobs, {manifest.total_bytes / 2**20:.1f} MiB"
    if action == "restore":
        return f"Restored {size} into {settings.home}. Start it: paretune up --home {settings.home}\n"
    text = f"Backup of {size} in {directory}, every byte verified.\n"
    if manifest.api_key:
        text += "It holds the API key of the embedded service: keep it as safe as the home.\n"
    if manifest.database is None:
        url = database_url(settings.database_url).render_as_string()
        text += f"It does not hold the database {url}, which must have been dumped before, with pg_dump.\n"
    return text


class _Progress:
    """Says how far it is, now and then, to those who watch a terminal."""

    def __init__(self) -> None:
        self._said_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._said_at > _PROGRESS_SECONDS:
            self._said_at = now
            sys.stderr.write(f"{done} of {total} blobs\n")


if __name__ == "__main__":
    sys.exit(main())
