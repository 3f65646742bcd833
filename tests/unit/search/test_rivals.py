"""What candidates are held against in a whole job: baselines, and the dense model in its best graph."""

from sqlmodel import select

from compressors.recipe import AttentionRecipe
from compressors.recipe import BaselineCandidate
from compressors.recipe import GraphRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recipe import RecipeCandidate
from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from search import coordinator
from search.candidates import is_dense
from search.candidates import keeps_everything
from tests.unit.search.synthetic import truth
from tests.unit.search.test_coordinator import run_until_queued
from tests.unit.search.test_coordinator import view


def test_the_dense_model_in_its_best_graph_is_measured_whatever_its_size_and_confirmed(bench):
    job_id = bench.submit(goal={"max_drop": 0.02, "max_size_mb": 0.0005})
    job = bench.run(job_id)
    (dense,) = [t for t in bench.trials(job_id) if is_dense(t.candidate)]
    assert dense.state == "complete", "too large for the goal, but what others must beat"
    assert dense.final_measurement is not None
    assert dense.id in job.summary["guard"]
    with bench.database.read_session() as session:
        assert coordinator.allowed_at_first(session, session.get(Job, job_id), dense) is None
    assert job.summary["notes"] == view(bench, job_id).notes == []


def test_what_counts_as_the_dense_model():
    whole, cut = LayerRecipe(), LayerRecipe(attention=AttentionRecipe(heads=1))
    recipes = {
        "dense": Recipe(layers=(whole, whole)),
        "other graph": Recipe(layers=(whole, whole), graph=GraphRecipe(gelu="erf"), precision="bf16"),
        "cut": Recipe(layers=(whole, cut)),
        "rounded": Recipe(layers=(whole.with_branches(bits=8), whole)),
        "shorter": Recipe(layers=(LayerRecipe(removed=True), whole)),
        "trained": Recipe(layers=(whole, whole), weights="0" * 64),
    }
    dense = {name for name, recipe in recipes.items() if keeps_everything(recipe)}
    assert dense == {"dense", "other graph"}
    stored = {name: RecipeCandidate(recipe=recipe).model_dump(mode="json") for name, recipe in recipes.items()}
    assert {name for name, payload in stored.items() if is_dense(payload)} == dense
    assert not is_dense(BaselineCandidate(name="fp32").model_dump(mode="json"))


def test_nothing_slower_than_the_dense_model_in_its_best_graph_is_on_the_front(bench, monkeypatch):
    def fast_graph(trial):
        ratio, drop, size = truth(trial)
        return (0.3 if is_dense(trial.candidate) else ratio), drop, size

    monkeypatch.setattr("tests.unit.search.synthetic.truth", fast_graph)
    job_id = bench.submit(goal={"max_drop": 0.02})
    bench.run(job_id)
    front = view(bench, job_id)
    (dense,) = [t for t in bench.trials(job_id) if is_dense(t.candidate)]
    assert dense.id in {point.id for point in front.points}
    for point in front.points:
        assert point.id == dense.id or point.latency.ratio.high < 0.3 * 0.99


def test_a_baseline_that_failed_is_told_with_the_reason(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    bench.run(job_id, most=1)
    bench.fails = {t.digest for t in bench.trials(job_id) if t.facts.get("name") == "int8_one_liner"}
    bench.fails |= {t.digest for t in bench.trials(job_id) if is_dense(t.candidate)}
    job = bench.run(job_id)
    assert job.state == "succeeded"
    said = "Nothing is held against {}: it failed. The runner was killed by signal 9. Give it more memory."
    front = view(bench, job_id)
    expected = [said.format("the baseline int8_one_liner"), said.format("the dense model in its best graph")]
    assert [note for note in front.notes if "failed" in note] == expected
    assert set(expected) <= set(job.summary["notes"])


def test_rivals_without_final_numbers_are_told_with_the_reason(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    run_until_queued(bench, job_id, "confirm")
    with bench.database.write_session() as session:
        (step,) = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "confirm")).all()
        step.state = "failed"
        session.add(step)
        for name in step.payload["trials"]:
            trial = session.get(Trial, name)
            coordinator.trial_failed(session, session.get(Job, job_id), trial, bench.error())
    job = bench.run(job_id)
    assert job.state == "succeeded"
    (note,) = [note for note in job.summary["notes"] if "final numbers" in note]
    assert note.startswith("No model has final numbers: all are those of the search. The runner was killed")
    assert note in view(bench, job_id).notes


def test_a_rival_that_the_final_measurements_left_out_is_told(bench):
    job_id = bench.submit(goal={"max_drop": 0.02})
    run_until_queued(bench, job_id, "confirm")
    with bench.database.write_session() as session:
        (step,) = session.exec(select(Step).where(Step.job_id == job_id, Step.kind == "confirm")).all()
        left_out = [t.id for t in bench.trials(job_id) if t.facts.get("name") == "int8_one_liner"]
        step.payload = step.payload | {"trials": [name for name in step.payload["trials"] if name not in left_out]}
        session.add(step)
    job = bench.run(job_id)
    assert "Nothing is held against the baseline int8_one_liner: it has no final numbers." in job.summary["notes"]
