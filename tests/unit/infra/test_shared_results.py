"""Shared results: kept once, alive as long as they are used and their sources are somebody's."""

from datetime import timedelta
from pathlib import Path

import pytest
from sqlmodel import Session
from sqlmodel import select

from infra import blobs
from infra.clock import utcnow
from infra.database.engine import Database
from infra.database.models import Blob
from infra.database.models import Dataset
from infra.database.models import SharedBlob
from infra.database.models import SharedResult
from infra.garbage import collect_blobs
from infra.retention import apply_retention
from infra.settings import load_settings
from infra.shared_results import Shared
from infra.shared_results import keep_shared
from infra.shared_results import use_shared
from infra.store import BlobStore
from infra.store import open_store

HOUR = 3600.0


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return open_store((tmp_path / "blobs").as_uri())


def add_data(session: Session, sha256: str) -> Dataset:
    dataset = Dataset(owner="me", name="data", format="jsonl", sha256=sha256)
    session.add(dataset)
    session.flush()
    return dataset


def put(database: Database, store: BlobStore, path: Path, text: str) -> str:
    path.write_text(text)
    return blobs.put_file(database, store, path).sha256


def keys(database: Database) -> set[str]:
    with database.read_session() as session:
        return set(session.exec(select(SharedResult.key)))


def test_the_first_result_is_kept_with_its_files(database: Database, store: BlobStore, tmp_path: Path) -> None:
    data = put(database, store, tmp_path / "data", "data")
    statistics = put(database, store, tmp_path / "statistics", "numbers")
    with database.write_session() as session:
        add_data(session, data)
        assert use_shared(session, "k") is None
        keep_shared(session, "k", "prepare", {"n": 1}, blobs={"calibration": statistics}, sources=[data])
    with database.write_session() as session:  # a job that computed the same at the same time
        keep_shared(session, "k", "prepare", {"n": 2}, blobs={"calibration": data}, sources=[data])
    with database.write_session() as session:
        assert use_shared(session, "k") == Shared({"n": 1}, {"calibration": statistics})
    assert collect_blobs(database, store, grace_seconds=0) == 0
    assert store.exists(statistics)


def test_unused_results_go_and_using_one_keeps_it(database: Database, store: BlobStore, tmp_path: Path) -> None:
    data = put(database, store, tmp_path / "data", "data")
    with database.write_session() as session:
        add_data(session, data)
        for key in ("used", "unused"):
            keep_shared(session, key, "options", {}, blobs={}, sources=[data])
            session.get_one(SharedResult, key).used_at = utcnow() - timedelta(hours=3)
    with database.write_session() as session:
        use_shared(session, "used")
    assert apply_retention(database, load_settings(retain_shared_seconds=2 * HOUR))["shared"] == 1
    assert keys(database) == {"used"}


def test_results_go_with_the_last_copy_of_the_data(database: Database, store: BlobStore, tmp_path: Path) -> None:
    data = put(database, store, tmp_path / "data", "data")
    statistics = put(database, store, tmp_path / "statistics", "numbers")
    with database.write_session() as session:
        mine, yours = add_data(session, data).id, add_data(session, data).id
        keep_shared(session, "k", "prepare", {}, blobs={"calibration": statistics}, sources=[data])
    for dataset_id, left in ((mine, {"k"}), (yours, set())):
        with database.write_session() as session:
            session.delete(session.get_one(Dataset, dataset_id))
        apply_retention(database, load_settings())
        assert keys(database) == left
    with database.read_session() as session:
        assert session.exec(select(SharedBlob)).all() == []
    collect_blobs(database, store, grace_seconds=0)
    assert not store.exists(statistics)
    with database.read_session() as session:
        assert session.get(Blob, statistics) is None
