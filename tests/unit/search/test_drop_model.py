"""The expected drop: noise is not mistaken for quality, and evidence is not ignored."""

import numpy as np
import pytest

from search.drop_model import DropModel
from search.drop_model import Evidence


def _simulate(
    seed: int, candidates: int = 60, examples: int = 465, slope: float = 0.0, bend: float = 1.2
) -> tuple[list[float], list[Evidence]]:
    """Candidates on a curve, by default at half of the usual drops, seen through a few hundred labels."""
    generator = np.random.default_rng(seed)
    truth, seen = [], []
    for changed in generator.uniform(0.01, 0.2, candidates):
        true = slope * changed + bend * changed**2
        lost, won, _ = generator.multinomial(examples, [(changed + true) / 2, (changed - true) / 2, 1 - changed])
        truth.append(true)
        seen.append(Evidence((lost + won) / examples, (lost - won) / examples, examples))
    return truth, seen


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("slope", "bend", "share"), [(0.2, 0.0, 0.6), (0.25, 0.0, 0.6), (0.3, 0.0, 0.6), (0.0, 1.2, 0.8)]
)
def test_expected_drops_are_closer_to_the_truth(seed: int, slope: float, bend: float, share: float) -> None:
    truth, seen = _simulate(seed, slope=slope, bend=bend)
    model = DropModel(seen)
    expected = np.array([model.expected([evidence]) for evidence in seen])
    raw = np.array([evidence.drop for evidence in seen])
    assert np.abs(expected - truth).mean() < share * np.abs(raw - truth).mean()


def test_the_luckiest_candidate_is_not_believed() -> None:
    _, seen = _simulate(0)
    model = DropModel(seen)
    lucky = max(seen, key=lambda evidence: evidence.changed - 5 * evidence.drop)
    assert model.expected([lucky]) > lucky.drop


def test_what_few_labels_make_of_a_smaller_model_is_no_gain():
    model = DropModel()
    assert model.expected([Evidence(0.04, -0.012, 465)]) == model.expected([Evidence(0.04, 0.0, 465)])
    assert model.expected([Evidence(0.04, -0.030, 465)]) < model.expected([Evidence(0.04, -0.012, 465)])


def test_many_labels_overrule_the_curve() -> None:
    _, seen = _simulate(1)
    model = DropModel(seen)
    assert model.expected([Evidence(0.1, -0.02, 200_000)]) == pytest.approx(-0.02, abs=0.002)


def test_before_there_is_evidence_the_usual_slope_is_expected() -> None:
    lucky = Evidence(0.1, -0.01, 400)
    assert 0.015 < DropModel().expected([lucky]) < 0.025


def test_luck_that_all_candidates_share_is_not_believed() -> None:
    """A hundred candidates that change the same predictions of one small split are no hundred observations."""
    shared = [Evidence(changed, -0.05 * changed, 465) for changed in np.linspace(0.03, 0.09, 100)]
    assert DropModel(shared).expected([Evidence(0.08, -0.004, 465)]) > 0.006


def test_other_examples_correct_the_curve() -> None:
    shared = [Evidence(changed, -0.05 * changed, 465) for changed in np.linspace(0.03, 0.09, 30)]
    held_out = [Evidence(changed, 0.4 * changed, 4000) for changed in np.linspace(0.03, 0.09, 8)]
    seen = [Evidence(0.08, -0.004, 465)]
    assert DropModel(shared, held_out).expected(seen) > DropModel(shared).expected(seen) + 0.003


@pytest.mark.parametrize("examples", [300, 5000])
def test_a_destroyed_model_does_not_win_by_what_its_labels_say(examples: int) -> None:
    """Where the labels do not fit the dense model, one that always gives the same answer seems to gain."""
    _, seen = _simulate(0)
    model = DropModel(seen)
    assert model.expected([Evidence(0.67, -0.23, examples)]) > 0.1
    assert model.expected([Evidence(0.4, 0.3, examples)]) == 0.3
    assert model.each([Evidence(0.67, -0.23, examples)]) == [model.expected([Evidence(0.67, -0.23, examples)])]


def test_an_unchanged_model_loses_nothing() -> None:
    _, seen = _simulate(2)
    assert DropModel(seen).expected([Evidence(0.0, 0.0, 400)]) == 0.0
