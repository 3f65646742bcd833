"""Time that the search borrows from the training, and gives back."""

import pytest

from search.budget import LARGEST_LOAN
from search.budget import LEAST_SEARCH
from search.budget import BudgetState
from search.budget import loan
from tests.unit.search.recoveries import GOAL


def test_what_the_search_borrowed_and_did_not_use_is_given_back(bench):
    bench.slow_learning = 200.0
    job_id = bench.submit(strategy="guided", goal=GOAL, budget={"seconds": 600, "trials": 6})
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    assert job.prepared["lent"] < 20, "of 75"
    assert job.prepared["recovery"]["budget"] > 280


def test_a_search_that_learning_has_left_no_time_takes_some_from_the_training(bench):
    bench.slow_learning = 200.0
    job_id = bench.submit(strategy="guided", goal=GOAL, budget={"seconds": 600})
    job = bench.run(job_id)
    assert job.state == "succeeded", job.error
    found = {trial.source for trial in bench.trials(job_id)} - {"baseline", "preset", "recovery"}
    assert found, "nothing was searched"
    wall = job.summary["wall_seconds"]
    assert 200 < wall["recover"] <= 0.5 * 600 * (1 - LARGEST_LOAN) + 10
    assert wall["total"] <= 610


def test_what_a_search_borrows_has_limits():
    def at_start(remaining):
        return BudgetState(
            elapsed=0, remaining=remaining, reserve=100, finalists=0, audits=0, trials=0, trial_limit=None
        )

    assert loan(at_start(100 + LEAST_SEARCH * 600), 600, 300) == 0
    assert loan(at_start(100 + LEAST_SEARCH * 600 - 20), 600, 300) == pytest.approx(20)
    assert loan(at_start(40), 600, 300) == LARGEST_LOAN * 300
    assert loan(at_start(0), 600, 300) == 0, "there would be no search all the same"
