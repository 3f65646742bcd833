"""Files of an S3 store through the API: a download goes on where the connection was lost."""

import hashlib
import io
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.blobs import put_file
from infra.database.models import Export
from infra.settings import Settings
from infra.store.base import CHUNK_BYTES
from paretune.downloading import fetch
from paretune.transport import Transport
from paretune.types import ExportFile
from tests.helpers.s3 import s3_server as s3_server
from tests.helpers.s3 import s3_url as s3_url
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit
from tests.unit.api.live import add_key
from tests.unit.api.live import run_server
from tests.unit.api.test_jobs import write_outcome

CONTENT = random.Random(0).randbytes(3 * CHUNK_BYTES + 17)
LOST_AFTER = CHUNK_BYTES + 1000


@pytest.fixture
def settings(settings: Settings, s3_url: str) -> Settings:
    return settings.model_copy(update={"store_url": s3_url})


@contextmanager
def losing_relay(port: int, requests: list[bytes]) -> Iterator[str]:
    """Pass connections on to a port; the first one is lost in the middle of its answer."""

    def pass_on(client: socket.socket, most: int | None) -> None:
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            request = client.recv(1 << 16)
            requests.append(request)
            server.sendall(request)
            while (most is None or most > 0) and (data := server.recv(1 << 16)):
                client.sendall(data)
                most = None if most is None else most - len(data)

    def serve() -> None:
        for most in (LOST_AFTER, None):
            pass_on(listener.accept()[0], most)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_lost_download_from_s3_goes_on_where_it_was(world: World, tmp_path: Path) -> None:
    key = add_key(world)
    client = world.client_with(key)
    job = submit(client, goal={"max_drop": 0.01})
    write_outcome(world, job["id"])
    created = client.post(f"/v1/jobs/{job['id']}/exports", json={}).json()
    services = world.services
    ref = put_file(services.database, services.store, io.BytesIO(CONTENT))
    assert services.store.path(ref.sha256) is None  # in S3, not in a file
    with services.database.write_session() as session:
        export = session.get_one(Export, created["id"])
        export.state, export.files = "ready", [{"name": "model.onnx", "sha256": ref.sha256, "size": ref.size}]
    file = ExportFile.model_validate(client.get(f"/v1/exports/{created['id']}").json()["files"][0])

    requests: list[bytes] = []
    with run_server(world) as url, losing_relay(int(url.rpartition(":")[2]), requests) as relay:
        path = fetch(Transport(relay, key), file, tmp_path / "out")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == ref.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert len(requests) == 2
    asked = [line for line in requests[1].lower().split(b"\r\n") if line.startswith(b"range:")]
    assert len(asked) == 1
    assert 0 < int(asked[0].removeprefix(b"range: bytes=").rstrip(b"-")) <= LOST_AFTER
