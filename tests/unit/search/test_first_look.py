"""When the first part of the texts is enough to give a candidate up, and what the search makes of such candidates."""

from dataclasses import replace

import numpy as np
import pytest
from sqlmodel import select

from compressors.recipe import Recipe
from infra.database.models import Job
from profilers.types import Estimate
from profilers.types import FirstLook
from search import coordinator
from search.agreement import agreement
from search.drop_model import SLOPE_SPREAD
from search.drop_model import USUAL_SLOPE
from search.drop_model import Evidence
from search.drop_model import least_drop
from search.first_look import Patience
from search.first_look import drop_model
from search.first_look import hopeless
from search.first_look import patience
from search.promote import quality_limit
from search.records import job_records
from search.requests import Goal
from search.strategies.targets import target_ratio
from search.study import TrialRecord
from search.summary import stopped_early
from tests.unit.search.synthetic import truth

USUAL = (USUAL_SLOPE, 0.0)


def look(changed: float, *, low: float | None = None, high: float | None = None, divergence: float = 0.2) -> FirstLook:
    """The first 64 of 512 texts, seen by a dense model that says each of two classes half of the time."""
    margin = 1.96 * np.sqrt(changed * (1 - changed) / 64)
    low, high = low if low is not None else changed - margin, high if high is not None else changed + margin
    return FirstLook(
        examples=64,
        of=512,
        divergence=divergence,
        change=Estimate(value=changed, low=low, high=high),
        constant_divergence=0.6,
        constant_change=0.5,
    )


def evaluated(changed: float, drop: float, examples: int = 400) -> TrialRecord:
    evidence = Evidence(changed, drop, examples)
    return TrialRecord("id", 0, "digest", "direct", "done", drop=drop, loss=drop, evidence=evidence)


@pytest.mark.parametrize("max_drop", [0.0, 0.005, 0.01, 0.02])
def test_hardly_a_model_that_the_goal_could_show_is_given_up(max_drop: float) -> None:
    """Of thousand models that lose just what the front still shows, on curves above and below the usual one."""
    generator = np.random.default_rng(0)
    lost = quality_limit(max_drop)
    given_up = 0
    for _ in range(1000):
        slope = USUAL_SLOPE * generator.uniform(0.6, 1.4)
        changed = generator.binomial(64, min(1.0, lost / slope)) / 64
        given_up += hopeless(look(changed), Patience(max_drop=max_drop, curve=USUAL)) is not None
    assert given_up <= 5


@pytest.mark.parametrize(("max_drop", "changed"), [(0.005, 0.2), (0.01, 0.3), (0.02, 0.45)])
def test_a_model_far_beyond_the_goal_is_given_up(max_drop: float, changed: float) -> None:
    stop = hopeless(look(changed), Patience(max_drop=max_drop, curve=USUAL))
    assert stop is not None
    assert quality_limit(max_drop) < stop.at_least < USUAL_SLOPE * changed
    assert "the first 64 of 512 texts" in stop.reason
    assert f"the goal allows {max_drop:.1%}" in stop.reason


def test_the_lower_end_counts_and_the_cheapest_change_that_is_plausible() -> None:
    allowed = Patience(max_drop=0.01, curve=USUAL)
    assert hopeless(look(0.5, low=0.14), allowed) is not None
    assert hopeless(look(0.5, low=0.13), allowed) is None, "the first part leaves open that it changes little"
    assert least_drop(USUAL, 0.14) > quality_limit(0.01) > least_drop(USUAL, 0.13)
    assert least_drop((0.0, 0.0), 1.0) == 0.0, "where changes cost nothing, no change is too much"
    assert hopeless(look(0.5, low=0.14), Patience(max_drop=0.01, curve=(0.1, 0.0))) is None


def test_a_job_in_which_changes_cost_little_is_more_patient() -> None:
    goal = Goal(max_drop=0.01)
    harmless = [evaluated(changed, 0.0, 20_000) for changed in (0.05, 0.1, 0.2)]
    harmful = [evaluated(changed, 0.5 * changed, 20_000) for changed in (0.05, 0.1, 0.2)]
    first, cheap, dear = (patience("direct", goal, trials, labelled=True) for trials in ([], harmless, harmful))
    assert first.curve == USUAL
    assert cheap.curve[0] < USUAL_SLOPE - SLOPE_SPREAD < USUAL_SLOPE + SLOPE_SPREAD < dear.curve[0]
    assert hopeless(look(0.3), first) is not None
    assert hopeless(look(0.3), cheap) is None


def test_labels_of_a_first_part_do_not_make_the_next_candidates_worse() -> None:
    whole = [evaluated(0.1, 0.025, 1000) for _ in range(30)]
    unlucky = [replace(evaluated(0.25, 0.2, 48), stopped=True) for _ in range(70)]
    assert drop_model([*whole, *unlucky]).curve == drop_model(whole).curve
    goal = Goal(max_drop=0.01)
    assert patience("direct", goal, [*whole, *unlucky], labelled=True) == patience("direct", goal, whole, labelled=True)


def test_without_labels_the_change_itself_is_the_drop() -> None:
    allowed = patience("guided", Goal(max_drop=0.01), [], labelled=False)
    assert allowed == Patience(max_drop=0.01, curve=None)
    assert hopeless(look(0.1, low=0.021), allowed).at_least == 0.021
    assert hopeless(look(0.1, low=0.019), allowed) is None


def test_without_a_maximum_drop_only_broken_models_are_given_up() -> None:
    allowed = patience("guided", Goal(max_latency_ms=5.0), [], labelled=True)
    assert allowed.max_drop is None
    collapsed = hopeless(look(0.5, divergence=0.7), allowed)
    assert "one constant answer" in collapsed.reason
    assert hopeless(look(0.5, divergence=0.5), allowed) is None, "its probabilities say more than a constant's"
    assert hopeless(look(0.35, low=0.31, high=0.45, divergence=0.7), allowed) is None, "so do its predictions"
    assert hopeless(look(0.45, low=0.29, divergence=0.7), allowed) is None, "it may be one of those that are known"


def test_a_constant_dense_model_breaks_nobody() -> None:
    """It says the same for every text of the first part, and the candidate says that too, if less surely."""
    same = look(0.0, low=-0.05, high=0.05, divergence=0.02)
    same = same.model_copy(update={"constant_divergence": 0.01, "constant_change": 0.0})
    assert hopeless(same, Patience()) is None


@pytest.mark.parametrize("source", ["baseline", "recovery"])
def test_baselines_and_trained_models_are_evaluated_to_the_end(source: str) -> None:
    assert patience(source, Goal(max_drop=0.01), [], labelled=True) is None


@pytest.fixture(params=["direct", "guided"])
def stopping(bench, monkeypatch, request):
    """A job whose evaluations have a first part, as the operation looks at it."""
    work = bench.work
    job_id = bench.submit(
        strategy=request.param, goal={"max_drop": 0.004}, budget={"seconds": None, "trials": 40}, repair_share=0.0
    )

    def staged(session, job, trial, kind):
        if kind == "evaluate":
            drop = truth(trial)[1]
            seen = look(min(1.0, 4 * drop), divergence=2 * drop)
            allowed = coordinator.allowed_at_first(session, job, trial)
            stop = hopeless(seen, allowed) if allowed else None
            stopped = {"reason": stop.reason, "at_least": stop.at_least} if stop else None
            trial.facts = trial.facts | {"first_part": seen.model_dump(mode="json") | {"stopped": stopped}}
        work(session, job, trial, kind)

    monkeypatch.setattr(bench, "work", staged)
    bench.run(job_id)
    return bench, job_id


def test_the_search_learns_from_what_was_given_up(stopping) -> None:
    bench, job_id = stopping
    trials = bench.trials(job_id)
    with bench.database.read_session() as session:
        job = session.exec(select(Job).where(Job.id == job_id)).one()
        records = job_records(session, job_id, labelled=True)
    assert job.state == "succeeded"
    given_up = [record for record in records if record.stopped]
    assert given_up
    assert {trials[record.number].state for record in given_up} == {"rejected"}
    for record in given_up:
        trial = trials[record.number]
        assert trial.facts["rejected"] == trial.facts["first_part"]["stopped"]["reason"]
        assert trial.measurement is None
        assert record.drop_at_least > quality_limit(0.004), "Optuna is told that it misses the goal"
        assert record.drop >= record.drop_at_least
        if record.predicted is not None:
            assert record.objectives is not None, "Optuna is told a value"
            assert record.taught_ratio == record.predicted
    assert any(record.predicted is not None for record in given_up)
    for record in records:
        is_rejected = trials[record.number].state == "rejected"
        assert record.taught_ratio == (record.predicted if is_rejected else record.ratio)
    note = stopped_early(trials)
    assert note in job.summary["notes"]
    assert f"64 of 512 texts, because they lose too much: {len(given_up)} of {len(trials)}" in note


def test_agreement_compares_numbers_of_the_same_texts_only(stopping) -> None:
    bench, job_id = stopping
    trials = bench.trials(job_id)
    rows = {(row.early, row.late): row for row in agreement(trials)}
    whole = sum(trial.source != "baseline" and trial.facts["first_part"]["stopped"] is None for trial in trials)
    assert 3 < whole < len(trials)
    assert rows["divergence", "drop"].models == rows["first_divergence", "drop"].models == whole
    assert rows["first_divergence", "drop"].rank_correlation == pytest.approx(1.0)
    assert rows["first_divergence", "holdout_drop"].models == rows["drop", "holdout_drop"].models


@pytest.mark.parametrize("stopped", [True, False])
def test_rejected_models_bound_the_targets_of_the_solver(stopped) -> None:
    dense = Recipe.dense(2)
    good = TrialRecord("a", 0, "a", "guided", "done", recipe=dense, ratio=0.6, drop=0.002, loss=0.002)
    bad = TrialRecord("b", 1, "b", "guided", "done", recipe=dense, predicted=0.5, drop=0.05, loss=0.05, stopped=stopped)
    goal = Goal(max_drop=0.01)
    alone, bounded = (target_ratio(trials, goal, 0, slowest=1.0, fastest=0.1) for trials in ([good], [good, bad]))
    assert alone < 0.5 < bounded < 0.6
    worse = TrialRecord("c", 2, "c", "guided", "done", recipe=dense, ratio=0.58, drop=0.06, loss=0.06)
    assert target_ratio([good, bad, worse], goal, 0, slowest=1.0, fastest=0.1) == bounded, "slower and worse than bad"
