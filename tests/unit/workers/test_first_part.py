"""Evaluation in two parts: on real files, and in a real job with a hopeless candidate."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressors.recipe import AttentionRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.database.models import Event
from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from profilers.backends import onnxruntime
from profilers.quality.evaluate import evaluate as evaluate_whole
from profilers.quality.first_part import LEAST
from profilers.quality.first_part import MOST
from profilers.quality.first_part import best_constant
from profilers.quality.first_part import first_positions
from profilers.quality.metrics import cosine
from profilers.quality.metrics import kl_divergence
from profilers.registry import get_profiler
from profilers.types import DeviceProfile
from profilers.types import Workload
from search.drop_model import USUAL_SLOPE
from search.first_look import Patience
from search.plan import PlannedTrial
from search.presenter import Presenter
from search.requests import Columns
from search.trials import create_planned
from tests.helpers.tiny_models import make_dataset
from tests.helpers.tiny_models import make_tiny_model
from tests.unit.workers.test_bench import context
from tests.unit.workers.test_recovery_job import Service
from workers.operations.bench import Bench
from workers.operations.build import build_artifact
from workers.operations.evaluate import evaluate
from workers.operations.inputs import DataFile
from workers.operations.inputs import JobInputs
from workers.operations.prepare import prepare

VARIED = 1
"""Seed of a tiny model that gives both answers about equally often."""
STRICT = Patience(max_drop=0.005, curve=(USUAL_SLOPE, 0.0))


def recipe(layers: int, heads: int, width: int) -> Recipe:
    layer = LayerRecipe(attention=AttentionRecipe(heads=heads), feed_forward=FeedForwardRecipe(intermediate_size=width))
    return Recipe(layers=(layer,) * layers, compensation="none")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("first")
    inputs = JobInputs(
        work=folder,
        model=make_tiny_model(folder / "model", seed=VARIED),
        dataset=DataFile(path=make_dataset(folder / "data.jsonl", rows=300), format="jsonl"),
        task="sequence-classification",
        columns=Columns(),
        workload=Workload(batch=1, sequence_length=32),
        device=DeviceProfile(name="local-cpu", profiler="onnxruntime"),
    )
    work = Bench(inputs)
    prepare(inputs.model_dump(mode="json"), context(work))
    return work


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every run of a model in the device's runtime."""
    counted: list[int] = []
    run = onnxruntime.OnnxRuntimeHandle.run

    def counting(self: Any, feeds: Any) -> Any:
        counted.append(1)
        return run(self, feeds)

    monkeypatch.setattr(onnxruntime.OnnxRuntimeHandle, "run", counting)
    return counted


def evaluated(work: Bench, candidate: Recipe, allowed: Patience | None) -> dict[str, Any]:
    arguments = {
        "inputs": work.inputs.model_dump(mode="json"),
        "candidate": RecipeCandidate(recipe=candidate).model_dump(mode="json"),
        "allowed_at_first": None if allowed is None else allowed.model_dump(mode="json"),
    }
    return evaluate(arguments, context(work))


def test_the_first_part_is_spread_over_the_split_and_small_splits_have_none() -> None:
    assert len(first_positions(2 * LEAST - 1)) == 0
    for examples in (2 * LEAST, 400, 1000, 10_000):
        positions = first_positions(examples)
        assert len(positions) == min(MOST, max(LEAST, round(examples / 8)))
        steps = np.diff([*positions, examples])
        assert positions[0] == 0
        assert steps.max() - steps.min() <= 1


def test_no_constant_is_nearer_to_the_dense_model() -> None:
    generator = np.random.default_rng(0)
    dense = generator.normal(0.3, 2.0, (200, 3))
    best = {task: best_constant(dense, task) for task in ("sequence-classification", "embedding")}
    for _ in range(100):
        other = generator.normal(0.0, 1.0, 3)
        alike, unlike = (np.broadcast_to(answer, dense.shape) for answer in (best["sequence-classification"], other))
        assert kl_divergence(dense, alike).mean() <= kl_divergence(dense, unlike).mean()
        alike, unlike = (np.broadcast_to(answer, dense.shape) for answer in (best["embedding"], other))
        assert cosine(dense, alike).mean() >= cosine(dense, unlike).mean()


def test_the_constant_answer_is_found_once_for_all_candidates(work: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []

    def counting(dense_outputs: Any, task: Any) -> Any:
        found.append(len(dense_outputs))
        return best_constant(dense_outputs, task)

    monkeypatch.setattr("profilers.quality.first_part.best_constant", counting)
    fresh = Bench(work.inputs)
    looks = [
        evaluated(fresh, recipe(len(work.network.layers), heads, 60), None)["facts"]["first_part"] for heads in (4, 3)
    ]
    assert found == [LEAST]
    assert looks[0]["constant_divergence"] == looks[1]["constant_divergence"]
    assert looks[0]["divergence"] != looks[1]["divergence"]


def test_in_two_parts_the_numbers_are_the_same_and_nothing_runs_twice(work: Bench, runs: list[int]) -> None:
    mild = recipe(len(work.network.layers), 4, 60)
    found = evaluated(work, mild, Patience(max_drop=0.5, curve=(USUAL_SLOPE, 0.0)))
    texts = work.data.texts["search"]
    assert len(runs) == len(texts) == found["quality"]["examples"]
    first = found["facts"]["first_part"]
    assert (first["examples"], first["of"], first["stopped"]) == (LEAST, len(texts), None)
    artifact, _ = build_artifact(work.inputs, RecipeCandidate(recipe=mild), context(work))
    with get_profiler("onnxruntime").open(work.inputs.device, work.inputs.workload, pinned=False) as session:
        whole, parts = evaluate_whole(
            session.load(artifact, static=False),
            texts,
            work.dense_outputs["search"],
            work.data.labels["search"],
            work.inputs.task,
            work.inputs.workload,
            split="search",
            padded=False,
        )
    assert found["quality"] == whole.model_dump(mode="json")
    positions = first_positions(len(texts))
    assert first["divergence"] == pytest.approx(parts.divergence[positions].mean())
    assert first["change"]["value"] == pytest.approx(1 - parts.fidelity[positions].mean())


def test_a_hopeless_candidate_costs_the_first_part_only(work: Bench, runs: list[int]) -> None:
    hopeless = recipe(len(work.network.layers), 1, 1)
    found = evaluated(work, hopeless, STRICT)
    assert len(runs) == found["quality"]["examples"] == LEAST
    stopped = found["facts"]["first_part"]["stopped"]
    assert stopped["at_least"] > 2 * STRICT.max_drop
    assert f"the first {LEAST} of {len(work.data.texts['search'])} texts" in stopped["reason"]
    assert found["size_bytes"] > 0
    runs.clear()
    whole = evaluated(work, hopeless, None)
    assert len(runs) == whole["quality"]["examples"] == len(work.data.texts["search"])
    assert whole["facts"]["first_part"] == found["facts"]["first_part"] | {"stopped": None}
    assert 1 - whole["quality"]["fidelity"] > found["facts"]["first_part"]["change"]["low"]


def test_a_file_that_is_too_large_is_not_evaluated(work: Bench, runs: list[int]) -> None:
    mild = recipe(len(work.network.layers), 4, 60)
    whole = evaluated(work, mild, None)
    runs.clear()
    found = evaluated(work, mild, Patience(max_size_mb=(whole["size_bytes"] - 1) / 1e6))
    assert not runs
    assert found["quality"] is None
    assert found["size_bytes"] == whole["size_bytes"]
    assert found["facts"]["parameters"] == whole["facts"]["parameters"]
    assert evaluated(work, mild, Patience(max_size_mb=whole["size_bytes"] / 1e6))["quality"] == whole["quality"]


@pytest.fixture(scope="module")
def service_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service_ = Service(tmp_path_factory.mktemp("home"), graph_seconds=0.0)
    yield service_
    service_.worker.close()
    service_.database.dispose()


def test_a_hopeless_candidate_of_a_job_is_rejected_early_and_says_so(service_: Service, tmp_path: Path) -> None:
    asked = {"strategy": "direct", "goal": {"max_drop": 0.005}, "workload": {"sequence_length": 32}}
    job_id = service_.submit(tmp_path, rows=300, seed=VARIED, **asked)
    job = service_.run(job_id, until="search")
    recipes = {"mild": recipe(3, 4, 500), "hopeless": recipe(3, 1, 1)}
    planned = [PlannedTrial(recipe=found, source="direct", name=name) for name, found in recipes.items()]
    planned.append(PlannedTrial(recipe=recipe(3, 1, 2), source="recovery", name="trained"))
    with service_.database.write_session() as session:
        created = create_planned(session, session.get_one(Job, job_id), planned, set(), len(planned))
        ids = {trial.facts["name"]: trial.id for trial in created}
    for step in service_.rows(Step, job_id=job_id, kind="evaluate"):
        assert service_.worker.run(step.id)
    trials = {trial.facts["name"]: trial for trial in service_.rows(Trial, job_id=job_id)}
    examples = {name: trial.quality["examples"] for name, trial in trials.items()}
    of = trials["mild"].quality["examples"]
    assert examples == {"mild": of, "hopeless": LEAST, "trained": of}
    assert of > 2 * LEAST
    assert {name: trial.state for name, trial in trials.items()}["hopeless"] == "rejected"
    assert trials["mild"].facts["first_part"]["stopped"] is None
    assert trials["trained"].facts["first_part"]["stopped"] is None
    with service_.database.read_session() as session:
        job = session.get_one(Job, job_id)
    view = Presenter(job, list(trials.values())).trial(trials["hopeless"])
    assert view.verdict == view.facts["first_part"]["stopped"]["reason"]
    assert view.verdict.startswith("not measured: ")
    assert view.quality.examples == LEAST
    (told,) = [
        event.payload
        for event in service_.rows(Event, job_id=job_id, kind="trial")
        if event.payload["trial_id"] == ids["hopeless"] and event.payload["state"] == "rejected"
    ]
    assert told["stopped"] == {"examples": LEAST, "of": of}


def test_a_candidate_of_a_job_above_its_size_limit_is_rejected_unevaluated_and_says_so(
    service_: Service, tmp_path: Path
) -> None:
    asked = {"strategy": "direct", "goal": {"max_size_mb": 0.001}, "workload": {"sequence_length": 32}}
    job_id = service_.submit(tmp_path, rows=300, seed=VARIED, **asked)
    service_.run(job_id, until="search")
    planned = [
        PlannedTrial(recipe=recipe(3, 4, width), source=source, name=source)
        for width, source in ((500, "direct"), (400, "recovery"))
    ]
    with service_.database.write_session() as session:
        create_planned(session, session.get_one(Job, job_id), planned, set(), len(planned))
    for step in service_.rows(Step, job_id=job_id, kind="evaluate"):
        assert service_.worker.run(step.id)
    rows = service_.rows(Trial, job_id=job_id)
    trials = {trial.facts["name"]: trial for trial in rows}
    large, trained = trials["direct"], trials["recovery"]
    assert (large.state, large.quality) == ("rejected", None)
    assert large.size_bytes > 1000
    assert large.predicted["ratio"] > 0, "the search learns where it is"
    assert trained.quality is not None
    assert trained.facts["rejected"].startswith("not measured: takes ")
    assert trained.state == "rejected"
    with service_.database.read_session() as session:
        job = session.get_one(Job, job_id)
    view = Presenter(job, rows).trial(large)
    assert view.verdict == f"not evaluated: takes {large.size_bytes / 1e6:.1f} MB, the goal allows 0.001 MB"
    assert view.quality is None
