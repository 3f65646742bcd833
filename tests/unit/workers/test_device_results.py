"""What one job measures on a device for later ones: found again as long as it holds, and measured anew otherwise."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from sqlmodel import Session
from sqlmodel import SQLModel
from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import BestGraph
from infra.database.models import Blob
from infra.database.models import Dataset
from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import JsonObject
from infra.database.models import Model
from infra.database.models import Step
from infra.settings import Settings
from infra.settings import load_settings
from search.options import BranchTable
from tests.unit.search.guided_problem import ANATOMY
from tests.unit.search.guided_problem import CAPABILITIES
from workers.stage import Stage
from workers.stages.graphs import GraphsStage
from workers.stages.graphs import start_graphs
from workers.stages.table import TableStage

RATIO = {"value": 0.9, "low": 0.89, "high": 0.91}
FACTS = {"fingerprint": "zen3", "cpu_limit": 2.0, "versions": {"onnxruntime": "1.23"}, "kernel": "6.1"}
MINUTES = 60.0


class MeasuresError(Exception):
    """The stage has begun to prepare a measurement."""


class Context:
    """As much of a stage's context as it takes to decide whether to measure."""

    def __init__(self, database: Database, step: Step) -> None:
        self.settings: Settings = load_settings(database_url="sqlite://")
        self.step, self._database = step, database

    def read_session(self) -> AbstractContextManager[Session]:
        return self._database.read_session()

    @property
    def workdir(self) -> Path:
        raise MeasuresError


class Jobs:
    """Jobs on one device, as far as their graphs."""

    def __init__(self, database: Database) -> None:
        self.database = database
        with database.write_session() as session:
            session.add(Blob(sha256="0", size=1))
            session.add(Model(id="m", owner="me", name="m", state="ready"))
            session.add(Device(id="d", name="local-cpu", profiler="onnxruntime", facts=FACTS))
            session.flush()
            session.add(Dataset(id="data", owner="me", name="data", format="jsonl", sha256="0"))

    def add(self, name: str, seconds: float | None) -> str:
        prepared = {
            "anatomy": ANATOMY.model_dump(mode="json"),
            "capabilities": CAPABILITIES.model_dump(mode="json"),
            "graph_defaults": {"graph": {}},
            "labelled": True,
        }
        request = {"model_id": "m", "dataset_id": "data", "budget": {"seconds": seconds, "trials": 5}}
        ids = {"id": name, "owner": "me", "model_id": "m", "dataset_id": "data", "device_id": "d"}
        with self.database.write_session() as session:
            session.add(Job(**ids, request=request, prepared=prepared, state="running"))
        return name

    def step(self, job_id: str, kind: str) -> Step:
        return Step(job_id=job_id, kind=kind, key=kind, queue="device")

    def work(self, stage: Stage, job_id: str) -> JsonObject:
        context: Any = Context(self.database, self.step(job_id, stage.kind))
        return stage.work(context)

    def finish(self, stage: Stage, job_id: str, output: JsonObject) -> None:
        with self.database.write_session() as session:
            stage.finish(session, self.step(job_id, stage.kind), output)

    def change_device(self, **facts: object) -> None:
        with self.database.write_session() as session:
            device = session.get_one(Device, "d")
            device.facts = device.facts | facts
            session.add(device)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    database = Database(f"sqlite:///{tmp_path / 'test.db'}")
    SQLModel.metadata.create_all(database.engine)
    yield Jobs(database)
    database.dispose()


def raced(seconds: float, ratio: JsonObject = RATIO) -> JsonObject:
    """What a race says that has changed nothing."""
    choice = {"graph": {}, "ratios": {"packed qkv": ratio}}
    return {"choices": {"graph": choice}, "seconds": seconds, "allowed": seconds}


def table(seconds: float, relative_error: float = 0.1) -> JsonObject:
    found = BranchTable(fixed={"f32": 0.3}, entries={}, relative_error=relative_error, seconds=seconds)
    return {"latency_table": found.model_dump(mode="json"), "table_seconds": seconds}


def test_graphs_of_a_short_job_are_raced_again_by_one_that_can_afford_more(jobs: Jobs) -> None:
    stage = GraphsStage()
    with pytest.raises(MeasuresError):
        jobs.work(stage, jobs.add("first", 3 * MINUTES))
    jobs.finish(stage, "first", raced(7.2))
    assert jobs.work(stage, jobs.add("alike", 5 * MINUTES))["choices"] == raced(7.2)["choices"]
    with pytest.raises(MeasuresError):
        jobs.work(stage, jobs.add("hour", 60 * MINUTES))
    jobs.finish(stage, "hour", raced(20.0))
    assert jobs.work(stage, jobs.add("second hour", 60 * MINUTES))["allowed"] == 0.0
    jobs.finish(stage, "alike", raced(7.2, RATIO | {"value": 0.905}))
    with jobs.database.read_session() as session:
        (known,) = session.exec(select(BestGraph)).all()
    assert known.found == {"choices": raced(20.0)["choices"], "seconds": 20.0}, "the better one is kept"


def test_a_job_skips_the_stage_only_if_it_would_not_race(jobs: Jobs) -> None:
    def begin(name: str, seconds: float) -> str:
        jobs.add(name, seconds)
        with jobs.database.write_session() as session:
            job = session.get_one(Job, name)
            start_graphs(session, job, 20.0)
            return job.stage

    assert begin("first", 3 * MINUTES) == "graphs"
    jobs.finish(GraphsStage(), "first", raced(7.2))
    assert begin("alike", 3 * MINUTES) != "graphs"
    assert begin("hour", 60 * MINUTES) == "graphs"


def test_tables_are_measured_again_where_they_were_imprecise_for_lack_of_time(jobs: Jobs) -> None:
    stage = TableStage()
    with pytest.raises(MeasuresError):
        jobs.work(stage, jobs.add("first", 2 * MINUTES))
    jobs.finish(stage, "first", table(15.0))
    assert jobs.work(stage, jobs.add("alike", 3 * MINUTES))["table_seconds"] == 0.0
    with pytest.raises(MeasuresError):
        jobs.work(stage, jobs.add("hour", 60 * MINUTES))
    jobs.finish(stage, "hour", table(45.0, 0.05))
    jobs.finish(stage, "alike", table(21.6))
    assert jobs.work(stage, jobs.add("unlimited", None))["latency_table"]["seconds"] == 45.0


def test_a_precise_table_is_good_enough_however_little_time_it_took(jobs: Jobs) -> None:
    jobs.finish(TableStage(), jobs.add("first", 2 * MINUTES), table(15.0, 0.02))
    assert jobs.work(TableStage(), jobs.add("hour", 60 * MINUTES))["table_seconds"] == 0.0


def test_a_step_of_the_width_that_was_not_found_for_lack_of_time_is_looked_for_again(jobs: Jobs) -> None:
    unclear = table(15.0, 0.02)
    unclear["latency_table"]["width_steps"] = [{"bits": 8, "precision": "f32", "base": 64, "times": {}, "step": None}]
    jobs.finish(TableStage(), jobs.add("first", 2 * MINUTES), unclear)
    with pytest.raises(MeasuresError):
        jobs.work(TableStage(), jobs.add("hour", 60 * MINUTES))


@pytest.mark.parametrize(
    "change", [{"fingerprint": "zen4"}, {"versions": {"onnxruntime": "1.24"}}, {"cpu_limit": 1.0}, {"kernel": "6.2"}]
)
def test_another_processor_or_runtime_is_measured_anew(jobs: Jobs, change: JsonObject) -> None:
    jobs.finish(TableStage(), jobs.add("first", None), table(45.0))
    jobs.finish(GraphsStage(), "first", raced(20.0))
    jobs.add("second", None)
    jobs.change_device(**change)
    for stage in (TableStage(), GraphsStage()):
        if "kernel" in change:
            jobs.work(stage, "second")
        else:
            with pytest.raises(MeasuresError):
                jobs.work(stage, "second")
