import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from optuna.trial import TrialState

from infra.clock import utcnow
from search.requests import Goal
from search.requests import JobRequest
from search.requests import Space
from search.space import build_space
from search.strategies import elite
from search.strategies import make_strategy
from search.strategies import proposer
from search.strategies.direct import DirectStrategy
from search.strategies.random import RandomStrategy
from search.study import StudyState
from search.study import TrialRecord
from tests.unit.search.synthetic import ANATOMY
from tests.unit.search.synthetic import CAPABILITIES
from tests.unit.search.synthetic import prepared
from tests.unit.search.synthetic import true_drop
from tests.unit.search.synthetic import true_ratio
from tests.unit.search.synthetic import true_size

SPACE = build_space(
    ANATOMY, CAPABILITIES, Space(ffn_step=1, kinds=("heads", "ffn", "depth", "bits")), prepared().graph_defaults
)
START = utcnow()


def empty(seed=0, goal=None):
    return StudyState(job_id="job", seed=seed, goal=goal or Goal(), trials=())


def grow(study, proposals, outcome="done"):
    """Add proposals as trials, evaluated by the formulas."""
    records = list(study.trials)
    for proposal in proposals:
        number = len(records)
        base = TrialRecord(
            trial_id=str(number),
            number=number,
            digest=proposal.recipe.digest,
            source=proposal.source,
            outcome=outcome,
            recipe=proposal.recipe,
            params=proposal.params,
            sampler_state=proposal.sampler_state,
        )
        records.append(finished(base) if outcome == "done" else base)
    return replace(study, trials=tuple(records))


def finished(record):
    drop = true_drop(record.recipe)
    return replace(
        record,
        outcome="done",
        ratio=true_ratio(record.recipe),
        loss=drop,
        drop=drop,
        drop_at_least=drop - 0.002,
        divergence=drop * 2,
        size_bytes=true_size(record.recipe),
        reference_ms=20.0,
        finished_at=START + timedelta(seconds=record.number),
    )


def search(strategy, trials, seed=0, goal=None):
    study = empty(seed, goal)
    while len(study.trials) < trials:
        study = grow(study, strategy.ask(study, 1))
    return study


@pytest.fixture(autouse=True)
def forget():
    proposer._kept.clear()


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_resumed_study_proposes_what_the_undisturbed_one_does(sampler):
    strategy, study = DirectStrategy(SPACE, sampler), empty(seed=3)
    for _ in range(12):
        study = grow(study, strategy.ask(study, 2))
        running = grow(study, strategy.ask(study, 1), outcome="running")
        warm = strategy.ask(running, 2)
        assert strategy.ask(running, 2) == warm
        proposer._kept.clear()
        assert DirectStrategy(SPACE, sampler).ask(running, 2) == warm
        study = replace(running, trials=tuple(finished(t) if t.outcome == "running" else t for t in running.trials))
    digests = [trial.digest for trial in study.trials]
    assert len(set(digests)) == len(digests) == 36


def long_study(trials, goal=None):
    """A study of random recipes, each of which has ended."""
    study = empty(seed=5, goal=goal)
    return grow(study, RandomStrategy(SPACE).ask(study, trials))


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_long_study_resumes_as_well(sampler):
    study = long_study(elite.NEWEST + 120, Goal(max_drop=0.1))
    strategy = DirectStrategy(SPACE, sampler)
    for _ in range(3):
        warm = strategy.ask(study, 2)
        proposer._kept.clear()
        assert DirectStrategy(SPACE, sampler).ask(study, 2) == warm
        assert not {proposal.recipe.digest for proposal in warm} & study.digests
        study = grow(study, warm)


def test_what_tpe_learns_from_has_the_whole_front_and_does_not_grow():
    study = long_study(600)
    strategy = DirectStrategy(SPACE)
    strategy.ask(study, 1)
    kept = next(iter(proposer._kept.values()))
    window = kept.elite.window()
    assert len(window) <= elite.BEST + elite.NEWEST + 50
    front = {trial.number for trial in kept.study.best_trials}
    assert 0 < len(front) <= elite.BEST
    assert front <= window
    assert set(range(600 - elite.NEWEST, 600)) <= window


def test_tpe_proposes_its_best_candidate_that_is_new():
    """Of its 24 candidates; were the best one taken and known already, it would have to be asked again and again."""
    small = build_space(ANATOMY, CAPABILITIES, Space(kinds=("heads",)), prepared().graph_defaults)
    study = search(DirectStrategy(small), 40)
    proposer._kept.clear()  # with what was only asked
    (proposal,) = DirectStrategy(small).ask(study, 1)
    assert len(next(iter(proposer._kept.values())).study.trials) == len(study.trials) + 1
    assert proposal.recipe.digest not in study.digests


def test_gaussian_process_proposes_and_resumes():
    small = build_space(ANATOMY, CAPABILITIES, Space(kinds=("heads",)), prepared().graph_defaults)
    study = search(DirectStrategy(small, "random"), 11)
    proposals = DirectStrategy(small, "gp").ask(study, 1)
    proposer._kept.clear()
    assert DirectStrategy(small, "gp").ask(study, 1) == proposals
    assert len({p.recipe.digest for p in proposals} | study.digests) == 12


GOALS = [Goal(max_drop=0.02), Goal(max_latency_ms=8.0, max_size_mb=0.0003), Goal(max_drop=0.02, max_size_mb=0.0003)]


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_samplers_learn_from_what_was_not_measured_and_not_evaluated(sampler, goal):
    proposer._kept.clear()
    study = search(RandomStrategy(SPACE), 14, goal=goal)
    trials = [replace(trial, reference_ms=20.0) for trial in study.trials]
    place = max(range(4, 14), key=lambda number: trials[number].size_bytes)
    unknown = {"ratio": None, "loss": None, "drop": None, "drop_at_least": None}
    trials[3] = replace(trials[3], ratio=None, predicted=0.7)
    trials[place] = large = replace(trials[place], predicted=0.8, **unknown)
    study = replace(study, trials=tuple(trials))
    assert len(DirectStrategy(SPACE, sampler).ask(study, 1)) == 1
    told = next(iter(proposer._kept.values())).study.trials[place]
    if goal.max_size_mb is None:
        assert told.state == TrialState.FAIL, "nothing is wrong with its size"
        return
    assert told.state == TrialState.COMPLETE
    assert told.constraints["size"] == pytest.approx(large.size_bytes / 1e6 - goal.max_size_mb)
    assert told.constraints["size"] > 0
    losses = [trial.loss for trial in study.trials[:place]]
    assert told.values[0] == 0.8
    assert min(losses) < told.values[1] < max(losses)


@pytest.mark.parametrize("make", [RandomStrategy, DirectStrategy])
def test_a_small_space_is_exhausted_exactly_once(make):
    small = build_space(ANATOMY, CAPABILITIES, Space(head_step=2, kinds=("heads",)), prepared().graph_defaults)
    strategy, study = make(small), empty()
    while proposals := strategy.ask(study, 3):
        study = grow(study, proposals)
    everything = {
        small.to_recipe({f"layer.{i}.heads": heads for i, heads in enumerate(choice)}).digest
        for choice in itertools.product((2, 4), repeat=3)
    }
    assert study.digests == everything
    assert len(study.trials) == 8


def test_seeds_differ_and_repeat():
    strategy = RandomStrategy(SPACE)
    assert strategy.ask(empty(1), 3) == strategy.ask(empty(1), 3)
    assert strategy.ask(empty(1), 3) != strategy.ask(empty(2), 3)
    one_by_one = search(strategy, 3, seed=1)
    assert [t.digest for t in one_by_one.trials] == [p.recipe.digest for p in strategy.ask(empty(1), 3)]


def test_tpe_beats_random_search():
    """Fastest model within the goal's drop after 60 trials, as a mean over seeds."""

    def best(sampler, seed):
        study = search(DirectStrategy(SPACE, sampler), 60, seed, Goal(max_drop=0.02))
        return min((t.ratio for t in study.trials if true_drop(t.recipe) <= 0.02), default=1.0)

    seeds = range(3)
    assert sum(best("tpe", seed) for seed in seeds) < sum(best("random", seed) for seed in seeds)


def test_failed_and_unmeasured_trials_are_digested():
    study = search(RandomStrategy(SPACE), 12)
    trials = list(study.trials)
    trials[3] = replace(trials[3], outcome="failed", ratio=None, loss=None, size_bytes=None)
    trials[4] = replace(trials[4], ratio=None, predicted=0.5)
    trials[5] = replace(trials[5], params=None)
    proposals = DirectStrategy(SPACE).ask(replace(study, trials=tuple(trials)), 2)
    assert len(proposals) == 2


def test_the_request_names_the_strategy():
    request = JobRequest(model_id="m", dataset_id="d", strategy="random")
    assert make_strategy(request, prepared(), SPACE).name == "random"
    request = JobRequest(model_id="m", dataset_id="d", strategy="direct", sampler="nsga2")
    assert make_strategy(request, prepared(), SPACE).name == "direct"
