"""A whole job with recovery training through the real stages, operations and runners; a runner is killed in it."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from sqlmodel import SQLModel
from sqlmodel import col
from sqlmodel import select

from compressors.export.graph_choices import alternatives
from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from infra import blobs
from infra.database.engine import Database
from infra.database.models import BestGraph
from infra.database.models import Dataset
from infra.database.models import Event
from infra.database.models import Export
from infra.database.models import Job
from infra.database.models import JobBlob
from infra.database.models import JsonObject
from infra.database.models import Model
from infra.database.models import ModelFile
from infra.database.models import Step
from infra.database.models import Trial
from infra.queue import StepQueue
from infra.settings import load_settings
from infra.steps import create_step
from infra.store import open_store
from search import coordinator
from search import service
from search.graph_choice import GraphChoice
from search.lifecycle import ENDED
from search.lifecycle import cancel_job
from search.requests import JobRequest
from search.shapes import Shape
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model
from workers.executor import StepExecutor
from workers.local_devices import register_local_devices
from workers.stages import STAGES

SECONDS = 16.0
EVALUATION_TEXTS = 160


class Service:
    """A database, a store, and one worker that does every step."""

    def __init__(self, home: Path, *, graph_seconds: float = 4.0) -> None:
        url = f"sqlite:///{home / 'test.db'}"
        self.settings = load_settings(
            home=home,
            database_url=url,
            host_lock_directory=home,
            retry_seconds=0.01,
            graph_seconds=graph_seconds,
            measure_seconds=1.0,
            confirm_seconds=1.0,
            runner_threads=1,
        )
        self.database = Database(url)
        SQLModel.metadata.create_all(self.database.engine)
        self.store = open_store(self.settings.store_url)
        self.worker = StepExecutor(self.settings, STAGES, StepQueue(self.settings))

    def submit(self, folder: Path, *, rows: int = EVALUATION_TEXTS, seed: int = 0, **changes: object) -> str:
        """Store a tiny model, evaluation data, and training data that contain the evaluation data."""
        task = changes.get("task", "sequence-classification")
        size = {"hidden_size": 64, "intermediate_size": 512, "layers": 3}
        model = make_tiny_model(folder / "model", task=task, seed=seed, **size)
        data = make_dataset(folder / "data.jsonl", rows=rows)
        train = make_dataset(folder / "train.jsonl", rows=600, seed=1)
        train.write_text(train.read_text() + data.read_text())
        paths = sorted(path for path in model.rglob("*") if path.is_file())
        files = {path.relative_to(model).as_posix(): blobs.put_file(self.database, self.store, path) for path in paths}
        sets = {path.stem: blobs.put_file(self.database, self.store, path) for path in (data, train)}
        register_local_devices(self.database, only_host=True)
        with self.database.write_session() as session:
            model_id = f"model-{task}"
            session.merge(Model(id=model_id, owner="me", name="tiny", state="ready"))
            session.flush()
            for name, ref in files.items():
                session.merge(ModelFile(model_id=model_id, name=name, sha256=ref.sha256, size=ref.size))
            for name, ref in sets.items():
                row = Dataset(id=name, owner="me", name=name, format="jsonl", sha256=ref.sha256)
                row.columns = ["text", "label"]
                session.merge(row)
            request = JobRequest.model_validate({"model_id": model_id, "dataset_id": "data"} | changes)
            return service.create_job(session, "me", request).id

    def run(self, job_id: str, until: str | None = None) -> Job:
        """Do steps until the job has reached a stage; by default until it has ended and no step is left."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            with self.database.read_session() as session:
                job = session.get_one(Job, job_id)
                waiting = select(Step).where(Step.job_id == job_id, Step.state == "queued")
                step = session.exec(waiting.order_by(col(Step.created_at), col(Step.id))).first()
            if until is not None and job.stage == until:
                return job
            if step is None:
                assert job.state in ENDED
                return job
            if not self.worker.run(step.id):
                time.sleep(0.05)
        raise AssertionError("the job does not end")

    def rows(self, table: type[SQLModel], **filters: object) -> list[SQLModel]:
        with self.database.read_session() as session:
            return list(session.exec(select(table).filter_by(**filters)))


@pytest.fixture(scope="module")
def service_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service_ = Service(tmp_path_factory.mktemp("home"))
    yield service_
    service_.worker.close()
    service_.database.dispose()


class Killer(threading.Thread):
    """Kills the compute runner once, when a training is well under way."""

    def __init__(self, service_: Service, job_id: str) -> None:
        super().__init__(daemon=True)
        self._service, self._job_id = service_, job_id
        self.over = False
        self.reached: int | None = None

    def run(self) -> None:
        while self.reached is None and not self.over:
            time.sleep(0.1)
            progress = training_progress(self._service, self._job_id)
            if progress and 0.5 < progress[-1]["step"] / progress[-1]["steps"] < 0.9:
                self.reached = progress[-1]["step"]
                for process in psutil.Process().children():
                    if '"role": "compute"' in " ".join(process.cmdline()):
                        process.send_signal(signal.SIGKILL)


def training_progress(service_: Service, job_id: str) -> list[JsonObject]:
    events = service_.rows(Event, job_id=job_id, kind="progress")
    return [event.payload for event in sorted(events, key=lambda event: event.id) if "recovery" in event.payload]


def test_graphs_are_raced_once_for_each_architecture_device_and_workload(service_: Service, tmp_path: Path) -> None:
    asked = {"strategy": "direct", "budget": {"seconds": None, "trials": 1}, "workload": {"sequence_length": 32}}
    first = service_.run(service_.submit(tmp_path / "first", **asked), until="search")
    (step,) = service_.rows(Step, job_id=first.id, kind="graphs")
    assert step.state == "done", step.error
    (known,) = service_.rows(BestGraph)
    choices = {form: GraphChoice.model_validate(choice) for form, choice in known.found["choices"].items()}
    assert choices.keys() == {"graph", "float_graph"}
    for form, choice in choices.items():
        start = GraphRecipe.model_validate(first.prepared["graph_start"][form])
        assert choice.ratios.keys() <= alternatives(start, rounded=form == "graph").keys()
        assert choice.changes == () or all(choice.ratios[name].high < 1 for name in choice.changes)
        assert first.prepared["graph_defaults"][form] == choice.graph.model_dump(mode="json")
    notices = service_.rows(Event, job_id=first.id, kind="notice")
    assert any("raced on this device" in event.payload["message"] for event in notices)

    second = service_.run(service_.submit(tmp_path / "second", **asked), until="search")
    assert service_.rows(Step, job_id=second.id, kind="graphs") == []
    assert second.prepared["graph_defaults"] == first.prepared["graph_defaults"]
    other = service_.run(
        service_.submit(tmp_path / "other", **asked | {"workload": {"sequence_length": 16}}), until="graphs"
    )
    assert service_.rows(Step, job_id=other.id, kind="graphs"), "another workload has its own race"
    for job in (first, second, other):
        with service_.database.write_session() as session:
            cancel_job(session, session.get_one(Job, job.id))


@pytest.mark.slow
def test_a_job_heals_shapes_and_survives_a_kill(service_: Service, tmp_path: Path) -> None:
    job_id = service_.submit(
        tmp_path,
        train_id="train",
        strategy="direct",
        objective="throughput",
        goal={"max_drop": 0.2},
        budget={"seconds": None, "trials": 2},
        workload={"batch": 1, "sequence_length": 64, "threads": 1},
        recover={"seconds": SECONDS, "losses": {"task": 0}},  # the dense model does not know the labels
    )
    service_.run(job_id, until="recover")
    # What is worth training follows from measured times, which are noise on so small a model: it is given here.
    layer = LayerRecipe(attention=AttentionRecipe(heads=2), feed_forward=FeedForwardRecipe(intermediate_size=128))
    shapes = [Shape(recipe=Recipe(layers=(layer,) * 3), ratio=0.5, origin="uniform")]
    with service_.database.write_session() as session:
        coordinator.commit(session, session.get_one(Job, job_id), coordinator.Plan(stage="recover", shapes=shapes))
    killer = Killer(service_, job_id)
    killer.start()
    job = service_.run(job_id)
    killer.over = True
    killer.join()
    assert job.state == "succeeded", job.error

    trials = service_.rows(Trial, job_id=job_id)
    assert {trial.measurement["objective"] for trial in trials if trial.measurement} == {"throughput"}
    healed = [trial for trial in trials if trial.source == "recovery"]
    assert healed
    assert {trial.state for trial in healed} <= {"complete", "rejected"}
    steps = service_.rows(Step, job_id=job_id, kind="recover")
    assert {step.state for step in steps} == {"done"}
    assert any(step.output["improved"] for step in steps)
    for step in steps:
        assert step.output["best_score"] >= step.output["start_score"]
        assert step.output["texts"] <= 600, "texts of the evaluation data were trained on"

    # The killed training went on from its checkpoint, not from its start.
    assert killer.reached is not None
    assert [step.attempt for step in steps].count(2) == 1
    counts = [(payload["recovery"], payload["step"]) for payload in training_progress(service_, job_id)]
    position = next(i for i, (_, step) in enumerate(counts) if step == killer.reached)
    name, after = counts[position + 1]
    assert name == counts[position][0]
    assert after > 0.5 * killer.reached

    # Weights are kept with the job: a healed model can be downloaded without the work directory. The dense model's
    # token states are not: they are large, and are computed anew where they are missing.
    names = {blob.name for blob in service_.rows(JobBlob, job_id=job_id)}
    weights = {trial.candidate["recipe"]["weights"] for trial in healed}
    assert {"train.jsonl", *(f"weights.{sha256}" for sha256 in weights)} <= names
    with service_.database.write_session() as session:
        export = Export(job_id=job_id, trial_id=healed[-1].id, format="torch")
        session.add(export)
        payload = {"export_id": export.id, "format": "torch"}
        create_step(
            session, job_id=job_id, trial_id=export.trial_id, kind="export", key="e", queue="compute", payload=payload
        )
    for path in (service_.settings.work / job_id).rglob("*.safetensors"):
        path.unlink()
    service_.run(job_id)
    exported = service_.rows(Export, job_id=job_id)[0]
    assert exported.state == "ready", exported.error
    assert json.dumps(exported.files).count("sha256") >= 2


def train(service_: Service, job_id: str, key: str, recipe: Recipe, **payload: object) -> str:
    """Do one training of a job, and return the digest of the weights."""
    payload |= {"recipe": recipe.model_dump(mode="json"), "seconds": 4.0, "place": [0, 0]}
    with service_.database.write_session() as session:
        create_step(session, job_id=job_id, kind="recover", key=key, queue="compute", payload=payload)
    (step,) = service_.rows(Step, job_id=job_id, key=key)
    for _ in range(8):  # a message is a hint: the claim may find that another step of the job is due first
        service_.worker.run(step.id)
        (step,) = service_.rows(Step, job_id=job_id, key=key)
        if step.state not in {"queued", "running"}:
            break
    assert step.state == "done", step.error
    return step.output["weights"]


@pytest.mark.slow
def test_an_embedding_model_shrinks_step_by_step_without_labels(service_: Service, tmp_path: Path) -> None:
    job_id = service_.submit(
        tmp_path,
        task="embedding",
        train_id="train",
        strategy="direct",
        budget={"seconds": None, "trials": 1},
        columns={"label_column": None},
        workload={"batch": 1, "sequence_length": 64, "threads": 1},
        recover={"seconds": 10.0, "mode": "gradual", "start": "taylor"},
    )
    service_.run(job_id, until="recover")

    def recipe(heads: int, width: int, bits: int = 32) -> Recipe:
        attention = AttentionRecipe(heads=heads, bits=bits)
        feed_forward = FeedForwardRecipe(intermediate_size=width, bits=bits)
        return Recipe(layers=(LayerRecipe(attention=attention, feed_forward=feed_forward),) * 3, criterion="taylor")

    first = train(service_, job_id, "first", recipe(3, 256))
    parent = recipe(3, 256).model_copy(update={"weights": first})
    second = train(service_, job_id, "second", recipe(2, 96), parent=parent.model_dump(mode="json"))
    rounded = recipe(2, 96, bits=8).model_copy(update={"weights": second})
    train(service_, job_id, "third", rounded, finish=True)

    # The second starts from the healed model, not from the dense one.
    train(service_, job_id, "direct", recipe(2, 96))
    steps = service_.rows(Step, job_id=job_id, kind="recover")
    done = {step.key: step.output for step in steps}
    assert done["second"]["start_score"] != pytest.approx(done["direct"]["start_score"], rel=1e-3)
    # The finish leaves weights on the int8 grid: a second rounding changes nothing.
    tensors = load_file(service_.settings.work / job_id / "recovery" / "third" / "weights.safetensors")
    weight = tensors["layers.0.feed_forward.up.weight"]
    step = weight.abs().amax(1, keepdim=True) / 127
    assert torch.allclose((weight / step).round() * step, weight, atol=1e-6)

    job = service_.run(job_id)
    assert job.state == "succeeded", job.error
    healed = [trial for trial in service_.rows(Trial, job_id=job_id) if trial.source == "recovery"]
    improved = {output["weights"] for output in done.values() if output["improved"]}
    # One that was cut from a healed model is tried as it was cut, where its own training had no time to improve it.
    cut = {step.output["weights"] for step in steps if step.payload.get("parent") is not None}
    assert improved <= {trial.candidate["recipe"]["weights"] for trial in healed} - {None} <= improved | cut
    assert all(trial.state in {"complete", "rejected"} for trial in healed)
    assert all(trial.quality["metric"] != "accuracy" for trial in healed)
