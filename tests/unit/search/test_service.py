import subprocess
import sys

import pytest
from sqlmodel import select

from infra.database.models import Device
from infra.database.models import Job
from infra.database.models import Model
from infra.database.models import Step
from infra.errors import ConflictError
from infra.errors import InfeasibleGoalError
from infra.errors import InvalidDatasetError
from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from profilers.types import Capabilities
from search import service
from search.requests import Goal
from search.requests import JobRequest


def create(bench, owner="me", **changes):
    request = JobRequest.model_validate({"model_id": "model", "dataset_id": "data"} | changes)
    with bench.database.write_session() as session:
        return service.create_job(session, owner, request)


def test_a_job_begins_with_one_inspect_step(bench):
    job = create(bench, name="first", priority=7)
    with bench.database.read_session() as session:
        steps = session.exec(select(Step).where(Step.job_id == job.id)).all()
    assert [(step.kind, step.queue, step.state, step.priority) for step in steps] == [
        ("inspect", "compute", "queued", 7)
    ]
    assert (job.state, job.stage) == ("queued", "inspect")
    assert JobRequest.model_validate(job.request).budget.seconds == 600


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model_id": "x"}, NotFoundError, "no model x"),
        ({"dataset_id": "x"}, NotFoundError, "no dataset x"),
        ({"calibration_id": "x"}, NotFoundError, "no dataset x"),
        ({"device": "mars"}, InvalidInputError, "no device 'mars'"),
        ({"columns": {"text_column": "body"}}, InvalidDatasetError, "no column 'body'"),
        ({"columns": {"label_column": "stars"}}, InvalidDatasetError, "no column 'stars'"),
        ({"columns": {"second_text_column": "b"}}, InvalidDatasetError, "no column 'b'"),
        ({"goal": {"max_latency_ms": 1e-5}}, InfeasibleGoalError, "starting any graph"),
    ],
)
def test_bad_requests_are_refused_with_a_way_out(bench, changes, error, words):
    with pytest.raises(error, match=words) as caught:
        create(bench, **changes)
    assert caught.value.hint


def test_an_objective_that_the_device_does_not_measure_is_refused(bench):
    with bench.database.write_session() as session:
        device = session.exec(select(Device)).first()
        assert device is not None
        device.capabilities = Capabilities(
            profiler="torch_cuda", available=True, objectives=("p50", "throughput")
        ).model_dump(mode="json")
        session.add(device)
    with pytest.raises(InvalidInputError, match="does not measure peak_memory") as caught:
        create(bench, objective="peak_memory")
    assert "throughput" in caught.value.hint
    assert JobRequest.model_validate(create(bench, objective="throughput").request).objective == "throughput"


def test_a_ceiling_on_time_does_not_go_with_memory():
    fields = {"model_id": "m", "dataset_id": "d", "objective": "peak_memory"}
    with pytest.raises(ValueError, match="give max_drop"):
        JobRequest.model_validate(fields | {"goal": {"max_latency_ms": 5.0}})
    assert JobRequest.model_validate(fields | {"goal": {"max_drop": 0.01}}).objective == "peak_memory"


def test_others_do_not_exist(bench):
    with pytest.raises(NotFoundError):
        create(bench, owner="somebody else")


def test_unready_model_and_missing_device_are_refused(bench):
    with bench.database.write_session() as session:
        session.add(Model(id="late", owner="me", name="m", state="uploading"))
        gone = {"profiler": "torch_cuda", "available": False, "reason": "there is no GPU"}
        session.add(Device(name="gpu", profiler="torch_cuda", capabilities=gone))
    with pytest.raises(ConflictError, match="uploading"):
        create(bench, model_id="late")
    with pytest.raises(InvalidInputError, match="no GPU"):
        create(bench, device="gpu")


def test_labels_may_be_missing_unless_they_were_asked_for(bench):
    with bench.database.write_session() as session:
        from infra.database.models import Dataset

        session.add(
            Dataset(id="plain", owner="me", name="p", format="jsonl", columns=["text"], rows=5, sha256="0" * 64)
        )
    job = create(bench, dataset_id="plain")
    assert JobRequest.model_validate(job.request).columns.label_column is None
    with pytest.raises(InvalidDatasetError):
        create(bench, dataset_id="plain", columns={"label_column": "label"})


def test_best_so_far_works_at_every_moment(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    with bench.database.read_session() as session, pytest.raises(ConflictError, match="nothing yet"):
        service.best(session, session.get(Job, job_id))
    for _ in range(12):
        bench.run(job_id, most=10)
        with bench.database.read_session() as session:
            job = session.get(Job, job_id)
            view = service.front(session, job)
            best = service.best(session, job)
            assert view.best.id == best.id
            assert view.trials
            report = service.report(session, job)
        assert best.latency.speedup.value == pytest.approx(1 / best.latency.ratio.value)
        shown = [v.id for v in [*view.points, *view.baselines, *report.others]]
        assert len(shown) == len(set(shown))
    assert job.state == "succeeded"
    assert report.summary["best"] == best.id
    assert best.confirmed
    assert best.quality.optimism == pytest.approx(0.0)
    int8 = next(b for b in view.baselines if b.name == "int8_one_liner")
    versus = best.latency.speedup_vs_int8
    assert versus.value == pytest.approx(int8.latency.ratio.value / best.latency.ratio.value)
    assert versus.low < versus.value < versus.high
    assert best.layers
    assert best.recipe is not None
    assert best.size_ratio < 1


def test_another_goal_may_be_asked_of_the_same_front(bench):
    job_id = bench.submit()
    bench.run(job_id)
    with bench.database.read_session() as session:
        job = session.get(Job, job_id)
        strict = service.best(session, job, Goal(max_drop=0.0))
        loose = service.best(session, job, Goal(max_drop=1.0))
    assert loose.latency.ratio.value <= strict.latency.ratio.value
    assert strict.quality.drop.value <= 0.0


def test_importing_the_service_loads_nothing_heavy():
    code = (
        "import sys, search.service;"
        "print([m for m in ('torch','transformers','onnxruntime','openvino','optuna','scipy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
