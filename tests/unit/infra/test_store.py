"""Every artifact store keeps the same promises; and what only the local one promises."""

import errno
import hashlib
import io
import os
import socket
import stat
import tempfile
import threading
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO

import pytest
from obstore.store import MemoryStore

from infra.clock import utcnow
from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from infra.errors import UnavailableError
from infra.store import BlobRef
from infra.store import BlobStore
from infra.store import open_store
from infra.store import s3
from infra.store.base import copy_and_hash
from infra.store.local import LocalStore
from infra.store.s3 import ObjectStore


@pytest.fixture(params=["local", "memory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "s3":
        return open_store(request.getfixturevalue("s3_url"))
    return LocalStore(tmp_path / "blobs") if request.param == "local" else ObjectStore(MemoryStore())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 20_000])
def test_what_was_put_is_read(store: BlobStore, data: bytes) -> None:
    ref = store.put(io.BytesIO(data), expected_sha256=digest(data))
    assert (ref.sha256, ref.size) == (digest(data), len(data))
    assert store.put(io.BytesIO(data)) == ref
    assert store.exists(ref.sha256)
    with store.open(ref.sha256) as stream:
        assert stream.read() == data
    assert [blob.sha256 for blob in store.list_blobs()] == [ref.sha256]


def test_a_file_is_put_and_a_stream_is_taken_from_where_it_stands(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole file")
    assert store.put(path).sha256 == digest(b"whole file")
    with path.open("rb") as stream:
        stream.seek(6)
        assert store.put(stream).sha256 == digest(b"file")


def test_other_files_than_announced_are_refused(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"other")
    with pytest.raises(InvalidInputError, match="was announced"):
        store.put(path, expected_sha256=digest(b"announced"))
    assert list(store.list_blobs()) == []


@pytest.fixture
def full_temporary_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file may be written to any more, as if the file system for temporary files were full."""

    def refuse(*_arguments: object, **_options: object) -> object:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


@pytest.mark.usefixtures("full_temporary_directory")
def test_a_file_goes_to_an_object_store_from_where_it_lies(s3_url: str, tmp_path: Path) -> None:
    store, path = open_store(s3_url), tmp_path / "file"
    path.write_bytes(os.urandom(1 << 20) * 12)
    ref = store.put(path, expected_sha256=digest(path.read_bytes()))
    with store.open(ref.sha256) as stream:
        assert stream.read() == path.read_bytes()
    with pytest.raises(UnavailableError, match="temporary files is full"):
        store.put(io.BytesIO(b"a stream"))


@pytest.mark.parametrize("mebibytes", [1, 10, 12], ids=["at once", "whole parts", "parts"])
def test_a_file_that_is_changed_while_it_is_stored_leaves_what_was_there(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mebibytes: int
) -> None:
    store, path = open_store(s3_url), tmp_path / "file"
    data = os.urandom(1 << 20) * mebibytes
    path.write_bytes(data)
    ref = store.put(path)

    def changed_after_hashing(source: BinaryIO, target: BinaryIO | None) -> BlobRef:
        found = copy_and_hash(source, target)
        path.write_bytes(b"other" + data[5:])
        return found

    monkeypatch.setattr(s3, "copy_and_hash", changed_after_hashing)
    with pytest.raises(InvalidInputError, match="changed while"):
        store.put(path)
    with store.open(ref.sha256) as stream:
        assert stream.read() == data


@pytest.mark.parametrize(("start", "length"), [(0, 3), (2, 5), (7, None), (0, None), (9, 100), (3, 0)])
def test_a_part_is_read(store: BlobStore, start: int, length: int | None) -> None:
    data = b"0123456789"
    ref = store.put(io.BytesIO(data))
    with store.open(ref.sha256, start=start, length=length) as stream:
        expected = data[start:] if length is None else data[start : start + length]
        assert stream.read() == expected


def test_other_bytes_than_announced_are_refused(store: BlobStore) -> None:
    with pytest.raises(InvalidInputError, match="was announced"):
        store.put(io.BytesIO(b"other"), expected_sha256=digest(b"announced"))
    assert not store.exists(digest(b"other"))


def test_what_is_not_there(store: BlobStore) -> None:
    assert not store.exists(digest(b"x"))
    assert store.path(digest(b"x")) is None
    store.delete(digest(b"x"))
    with pytest.raises(NotFoundError):
        store.open(digest(b"x")).read()


def test_delete(store: BlobStore) -> None:
    ref = store.put(io.BytesIO(b"x"))
    store.delete(ref.sha256)
    assert not store.exists(ref.sha256)
    assert list(store.list_blobs()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_names_that_are_no_digest_never_become_a_path(store: BlobStore, name: str) -> None:
    for operation in (store.open, store.exists, store.delete):
        with pytest.raises(ValueError, match="not a sha256"):
            operation(name)


def test_many_writers_of_the_same_bytes(store: BlobStore) -> None:
    errors: list[BaseException] = []

    def put() -> None:
        try:
            store.put(io.BytesIO(b"same" * 100_000))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(list(store.list_blobs())) == 1


class Failing(io.BytesIO):
    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error
        self.calls = 0

    def read(self, size: int | None = -1) -> bytes:
        self.calls += 1
        if self.calls > 2:
            raise self.error
        return b"x" * 1000


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(errno.ENOSPC, "full"), UnavailableError), (ConnectionResetError("client left"), ConnectionResetError)],
)
def test_a_write_that_fails_leaves_nothing(tmp_path: Path, error: OSError, raised: type[Exception]) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(raised):
        store.put(Failing(error))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_blobs_are_read_only_files_and_damaged_ones_are_replaced(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref = store.put(io.BytesIO(b"data"))
    path = store.path(ref.sha256)
    assert path == tmp_path / "sha256" / ref.sha256[:2] / ref.sha256[2:4] / ref.sha256
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    path.chmod(0o644)
    path.write_bytes(b"cut")
    store.put(io.BytesIO(b"data"))
    assert path.read_bytes() == b"data"


def test_putting_again_makes_a_blob_young(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    ref = store.put(io.BytesIO(b"data"))
    path = store.path(ref.sha256)
    assert path is not None
    os.utime(path, (0, 0))
    store.put(io.BytesIO(b"data"))
    assert next(iter(store.list_blobs())).modified_at > utcnow() - timedelta(minutes=1)


def test_leftovers_of_crashed_writers_are_removed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    old, new = tmp_path / "tmp" / "old", tmp_path / "tmp" / "new"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    assert store.remove_leftovers(utcnow() - timedelta(hours=1)) == 1
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.parametrize(
    ("url", "kind"),
    [("file:///tmp/a%20b", LocalStore), ("memory:///", ObjectStore), ("s3://bucket/prefix", ObjectStore)],
)
def test_urls(url: str, kind: type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setattr(Path, "mkdir", lambda *_args, **_options: None)
    assert isinstance(open_store(url), kind)


def test_a_url_that_names_no_store_is_refused() -> None:
    with pytest.raises(ValueError, match="store URL"):
        open_store("nonsense://x")


def test_a_large_blob_goes_to_s3_in_parts_and_comes_back(s3_url: str) -> None:
    data = os.urandom(1 << 20) * 24
    store = open_store(s3_url)
    ref = store.put(io.BytesIO(data))
    with store.open(ref.sha256, start=(20 << 20) - 1, length=3) as stream:
        assert stream.read() == data[(20 << 20) - 1 : (20 << 20) + 2]
    with store.open(ref.sha256) as stream:
        assert digest(stream.read()) == ref.sha256


def test_an_s3_that_is_away_is_not_the_users_fault(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{address}")
    with pytest.raises(UnavailableError) as caught:
        open_store(s3_url).exists(digest(b"x"))
    assert address not in str(caught.value.to_dict())
    assert address in caught.value.explain()
