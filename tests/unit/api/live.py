"""The app behind a real server on a real port, for the client, the command line and event streams."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from infra.api_keys import ALL_SCOPES
from infra.api_keys import new_key
from paretune import Client
from tests.unit.api.conftest import World


@dataclass
class LiveService:
    """A running service and a key with all scopes."""

    world: World
    url: str
    key: str

    def connect(self) -> Client:
        """A client of the service."""
        return Client(self.url, self.key)


@contextmanager
def run_server(world: World, port: int = 0) -> Iterator[str]:
    """Serve the app until the block ends; gives its URL."""
    config = uvicorn.Config(world.app, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=2)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise RuntimeError("the server did not start")
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)


def add_key(world: World) -> str:
    row, text = new_key("live", ALL_SCOPES)
    with world.services.database.write_session() as session:
        session.add(row)
    return text
