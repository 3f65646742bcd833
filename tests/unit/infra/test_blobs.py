"""Blobs: never a row without its bytes, never bytes of another blob, and garbage collection takes only garbage."""

import io
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select
from sqlmodel import update

from infra import blobs
from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import Blob
from infra.database.models import Export
from infra.database.models import Job
from infra.database.models import JobBlob
from infra.database.models import Model
from infra.database.models import ModelFile
from infra.database.models import Trial
from infra.database.models import Upload
from infra.errors import UnavailableError
from infra.garbage import collect_blobs
from infra.store.base import BlobRef
from infra.store.local import LocalStore
from infra.store.s3 import ObjectStore
from tests.helpers.rows import add_job

DAY = 24 * 3600.0


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "blobs")


def put(database: Database, store: LocalStore, text: str) -> str:
    return blobs.put_file(database, store, io.BytesIO(text.encode())).sha256


def age(database: Database, store: LocalStore) -> None:
    """Make every blob two days old."""
    with database.write_session() as session:
        session.execute(update(Blob).values(created_at=utcnow() - timedelta(days=2)))
    for blob in store.list_blobs():
        path = store.path(blob.sha256)
        assert path is not None
        os.utime(path, (0, 0))


def known(database: Database) -> set[str]:
    with database.read_session() as session:
        return set(session.exec(select(Blob.sha256)))


def test_put_file_writes_bytes_and_row(database: Database, store: LocalStore) -> None:
    sha256 = put(database, store, "data")
    assert put(database, store, "data") == sha256
    with database.read_session() as session:
        assert session.get_one(Blob, sha256).size == 4
    assert store.exists(sha256)


def test_a_row_is_not_written_without_its_bytes(database: Database, store: LocalStore) -> None:
    ref = BlobRef("a" * 64, 1)

    def record(session: Session) -> None:
        blobs.record_blob(session, store, ref)

    with pytest.raises(UnavailableError), database.write_session() as session:
        record(session)
    assert known(database) == set()


def test_garbage_is_what_no_row_needs_and_is_not_young(database: Database, store: LocalStore) -> None:
    kinds = ("model", "dataset", "job", "export", "upload", "garbage")
    digests = {kind: put(database, store, kind) for kind in kinds}
    with database.write_session() as session:
        job = add_job(session)
        dataset_blob = session.exec(select(Blob.sha256).where(Blob.size == 1)).one()
        model = session.get_one(Model, job.model_id)
        session.add(ModelFile(model_id=model.id, name="config.json", sha256=digests["model"], size=5))
        session.add(JobBlob(job_id=job.id, name="calibration", sha256=digests["job"]))
        trial = Trial(job_id=job.id, number=0, source="baseline", digest="d")
        session.add(trial)
        session.flush()
        files = [{"name": "model.onnx", "sha256": digests["export"], "size": 6}]
        session.add(Export(job_id=job.id, trial_id=trial.id, format="onnx", files=files))
        session.add(Upload(owner="o", kind="dataset", name="n", length=9, parts=[digests["upload"]]))
    with database.write_session() as session:
        session.get_one(Blob, dataset_blob).sha256  # noqa: B018 - it exists
    stray = store.put(io.BytesIO(b"stored, but its writer died before it wrote the row")).sha256

    assert collect_blobs(database, store, DAY) == 0
    age(database, store)
    young = put(database, store, "young")
    assert collect_blobs(database, store, DAY) == 3  # garbage, stray, and the unused dataset named "dataset"

    kept = {digests[kind] for kind in ("model", "job", "export", "upload")} | {young}
    assert known(database) == kept | {dataset_blob}
    assert {blob.sha256 for blob in store.list_blobs()} == kept
    assert not store.exists(stray)

    with database.write_session() as session:
        session.delete(session.get_one(Job, job.id))
    age(database, store)
    assert collect_blobs(database, store, DAY) == 3  # the job's, the export's, and what was young
    assert known(database) == {digests["model"], digests["upload"], dataset_blob}


def test_bytes_stored_again_while_strays_go_keep_their_row_or_lose_it(database: Database, tmp_path: Path) -> None:
    results: list[BlobRef | UnavailableError] = []

    def store_again() -> None:
        try:
            results.append(blobs.put_file(database, LocalStore(tmp_path / "blobs"), io.BytesIO(b"stray")))
        except UnavailableError as error:
            results.append(error)

    class SlowStore(LocalStore):
        """Lets another writer in between the collector's look and its delete."""

        def delete(self, sha256: str) -> None:
            writer.start()
            writer.join(0.5)
            super().delete(sha256)

    writer = threading.Thread(target=store_again)
    slow = SlowStore(tmp_path / "blobs")
    sha256 = slow.put(io.BytesIO(b"stray")).sha256
    age(database, slow)
    assert collect_blobs(database, slow, DAY) == 1
    writer.join()
    assert (sha256 in known(database)) == slow.exists(sha256)
    assert isinstance(results[0], UnavailableError) != slow.exists(sha256)


def test_bytes_that_are_stored_again_are_not_garbage(database: Database, store: LocalStore) -> None:
    sha256 = put(database, store, "data")
    age(database, store)
    put(database, store, "data")
    assert collect_blobs(database, store, DAY) == 0
    with database.read_session() as session:
        assert session.exec(select(Blob).where(col(Blob.created_at) > utcnow() - timedelta(hours=1))).one()
    assert store.exists(sha256)


def test_materialised_files_are_verified(store: LocalStore, tmp_path: Path) -> None:
    ref = store.put(io.BytesIO(b"data"))
    target = tmp_path / "work" / "file"
    for _ in range(2):
        assert blobs.materialise(store, ref.sha256, target).read_bytes() == b"data"
    assert target.stat().st_nlink == 2

    stored = store.path(ref.sha256)
    assert stored is not None
    stored.chmod(0o644)
    stored.write_bytes(b"evil")
    with pytest.raises(UnavailableError, match="damaged"):
        blobs.materialise(store, ref.sha256, tmp_path / "other")
    assert [path.name for path in tmp_path.glob("*other*")] == []


def test_materialise_from_an_object_store(tmp_path: Path) -> None:
    store = ObjectStore.from_url("memory:///")
    ref = store.put(io.BytesIO(b"data" * 1_000_000))
    assert blobs.materialise(store, ref.sha256, tmp_path / "file").read_bytes() == b"data" * 1_000_000


@pytest.mark.parametrize("hours", [-48, 48])
def test_a_host_s_wrong_clock_neither_ends_nor_prolongs_the_grace_period(
    database: Database, store: LocalStore, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    for module in ("infra.clock", "infra.blobs"):  # of the host that stores, not of the one that collects
        monkeypatch.setattr(f"{module}.utcnow", lambda: utcnow() + timedelta(hours=hours), raising=False)
    sha256 = put(database, store, "data")
    assert collect_blobs(database, store, DAY) == 0
    assert known(database) == {sha256}
    assert collect_blobs(database, store, -1.0) == 1
    assert known(database) == set()
