"""The explorer on problems whose answer is known, and on a real model."""

import itertools

import numpy as np

from compressors.options.explore import Choice
from compressors.options.explore import Explorer

UNITS, LEVELS, STAGES = 6, 4, 3


def interacting(seed: int) -> np.ndarray:
    """Costs of pairs of units: what a solver that adds up single costs cannot see."""
    return np.random.default_rng(seed).random((UNITS, UNITS, LEVELS, LEVELS))


def make_score(costs: np.ndarray, noise: float = 0.05):
    def score(choice: Choice, parts: int) -> float:
        exact = sum(costs[a, b, choice[a], choice[b]] for a, b in itertools.combinations(range(UNITS), 2))
        wobble = np.random.default_rng([*choice, parts]).normal(0, noise * (STAGES - parts))
        return float(exact + wobble)

    return score


def neighbours(parents):
    """One level up somewhere, one down elsewhere: the sum of the levels is the budget."""
    for parent in parents:
        for up, down in itertools.permutations(range(UNITS), 2):
            if parent[up] + 1 < LEVELS and parent[down] > 0:
                child = list(parent)
                child[up] += 1
                child[down] -= 1
                yield tuple(child)


def test_result_is_never_worse_than_the_start_and_keeps_the_budget() -> None:
    for seed in range(20):
        score = make_score(interacting(seed))
        start: Choice = (2, 1, 2, 1, 2, 1)
        calls = itertools.count()
        found = Explorer(score, STAGES, lambda calls=calls: next(calls) > 60).search([start], neighbours)
        assert found[0][1] <= score(start, STAGES)
        assert all(sum(choice) == sum(start) for choice, _ in found)
        assert [value for _, value in found] == sorted(value for _, value in found)


def test_finds_nearly_the_best_of_all_combinations() -> None:
    gaps = []
    for seed in range(10):
        costs = interacting(seed)
        score = make_score(costs)
        start: Choice = (2, 1, 2, 1, 2, 1)
        best = min(
            score(choice, STAGES)
            for choice in itertools.product(range(LEVELS), repeat=UNITS)
            if sum(choice) == sum(start)
        )
        found = Explorer(score, STAGES, lambda: False).search([start], neighbours)
        gaps.append((found[0][1] - best) / (score(start, STAGES) - best))
    assert np.mean(gaps) < 0.25


def test_most_candidates_are_scored_on_little_text() -> None:
    seen: list[int] = []
    score = make_score(interacting(1))

    def counting(choice: Choice, parts: int) -> float:
        seen.append(parts)
        return score(choice, parts)

    Explorer(counting, STAGES, lambda: False).search([(2, 1, 2, 1, 2, 1)], neighbours)
    assert seen.count(1) > 4 * seen.count(STAGES)
    assert len(seen) == len(set(seen)) or seen.count(STAGES) >= 1


def test_stops_at_once_when_there_is_no_time() -> None:
    score = make_score(interacting(2))
    start: Choice = (2, 1, 2, 1, 2, 1)
    explorer = Explorer(score, STAGES, lambda: True)
    assert explorer.search([start, (1, 2, 1, 2, 1, 2)], neighbours) == [(start, score(start, STAGES))]
    assert explorer.evaluations == 1
