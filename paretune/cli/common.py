"""What commands do with jobs by name."""

from pathlib import Path

from paretune.client import Client
from paretune.errors import ApiError

LATEST = "latest"


def connect(url: str | None, api_key: str | None, home: Path | None) -> Client:
    """Return a client for the shared options."""
    return Client(url, api_key, home=home)


def job_id(client: Client, name: str) -> str:
    """Return the id of a job that is given by id or as ``latest``."""
    if name != LATEST:
        return name
    newest = next(client.jobs(), None)
    if newest is None:
        raise ApiError("There is no job yet.", hint="Submit one: paretune submit MODEL_DIR --data FILE.")
    return newest.id
