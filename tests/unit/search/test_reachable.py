"""Goals that nothing is predicted to meet: refused where that is clear, and said where it is likely."""

from dataclasses import replace

import numpy as np
import pytest
from sqlmodel import select

from compressors.recipe import Recipe
from infra.database.models import Event
from infra.errors import InfeasibleGoalError
from search.requests import Goal
from search.strategies import guided
from search.strategies.guided_space import GuidedSpace
from tests.unit.search.guided_problem import HEADS
from tests.unit.search.guided_problem import WIDTH
from tests.unit.search.guided_problem import Problem

OTHERS = 5e6


class Kept(Problem):
    """A device that is as its table says, and files of 5 MB besides branches that cannot be removed."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.factors = dict.fromkeys(self.factors, 1.0)

    def size(self, recipe: Recipe) -> int:
        total = OTHERS
        for layer in recipe.layers:
            heads, width = layer.attention.heads, layer.feed_forward.intermediate_size
            total += 1e6 * (1.0 if heads is None else heads / HEADS) * layer.attention.bits / 32
            total += 1e6 * (1.0 if width is None else width / WIDTH) * layer.feed_forward.bits / 32
        return round(total)

    def database(self, *, divergences: bool = True):
        found = super().database(divergences=divergences)
        units = [
            unit.model_copy(update={"options": tuple(o for o in unit.options if o.recipe.level != 0)})
            for unit in found.units
        ]
        return found.model_copy(update={"units": tuple(units)})


@pytest.fixture(scope="module")
def problem():
    return Kept()


@pytest.fixture(scope="module")
def study(problem):
    """After what needs no search."""
    return problem.search(problem.strategy("direct"), 4, first=problem.presets())


@pytest.fixture(scope="module")
def space(problem, study):
    strategy = problem.strategy("guided")
    model = guided.latency_model(strategy._request, strategy._prepared, study.trials)
    return GuidedSpace(strategy._units, strategy._space, model)


@pytest.fixture(scope="module")
def fastest_ms(space):
    return 20 * space.reach("f32")[1]


@pytest.fixture(scope="module")
def smallest_mb(space):
    return (OTHERS + sum(unit.size.min() for unit in space.units)) / 1e6


def ask(problem, study, **goal):
    return problem.strategy("guided").ask(replace(study, goal=Goal(**goal)), 2)


def test_the_error_of_a_ceiling_names_the_fastest_model_as_it_is_predicted(problem, study, fastest_ms):
    with pytest.raises(InfeasibleGoalError, match="smallest allowed model") as caught:
        ask(problem, study, max_latency_ms=0.5 * fastest_ms)
    assert f"about {fastest_ms:.3g} ms" in caught.value.message
    assert f"{fastest_ms:.3g} ms" in caught.value.hint


def test_a_ceiling_that_predictions_do_not_rule_out_is_tried_and_doubted(problem, study, fastest_ms):
    doubted = ask(problem, study, max_latency_ms=0.85 * fastest_ms)
    assert f"predicted to take {fastest_ms:.3g} ms" in doubted[0].notice
    assert [proposal.notice for proposal in ask(problem, study, max_latency_ms=1.05 * fastest_ms)] == [None, None]
    assert [proposal.notice for proposal in ask(problem, study, max_drop=0.01)] == [None, None]


def test_a_size_below_the_smallest_options_is_refused_before_the_search(problem, study, smallest_mb):
    """4-bit weights, which whole models are tried in, are not among the options: they take half."""
    with pytest.raises(InfeasibleGoalError, match="smallest allowed model") as caught:
        ask(problem, study, max_drop=0.01, max_size_mb=0.8 * smallest_mb)
    assert f"{smallest_mb:.3g} MB" in caught.value.message
    doubted = ask(problem, study, max_drop=0.01, max_size_mb=0.97 * smallest_mb)
    assert f"expected to take {smallest_mb:.3g} MB" in doubted[0].notice
    assert ask(problem, study, max_drop=0.01, max_size_mb=1.01 * smallest_mb)[0].notice is None


def test_a_size_is_not_refused_while_no_file_shows_what_else_it_holds(problem, study):
    unknown = replace(study, trials=())
    assert "MB" in ask(problem, unknown, max_size_mb=0.9)[0].notice


def test_limits_that_can_be_had_one_by_one_but_not_together_are_doubted(problem, study, space):
    """Low-rank branches are the smallest here, and slow: whoever wants the fastest cannot have them."""
    small = [unit.size.copy() for unit in space.units]
    strategy = problem.strategy("guided")
    slow = [int(np.argmax(time)) for time in space.times("f32")]
    units = []
    for unit, size, index in zip(strategy._units, small, slow, strict=True):
        size[index] = 10.0
        units.append(replace(unit, size=size))
    strategy._units = units
    strategy._context += ":slow and small"
    fast, least = space.reach("f32")[1], sum(size.min() for size in small)
    goal = Goal(max_latency_ms=20 * 1.05 * fast, max_size_mb=(1e6 + 2 * least) / 1e6)
    doubted = strategy.ask(replace(study, goal=goal, trials=tuple(_without_sizes(study))), 1)
    assert "No allowed model is predicted to take at most" in doubted[0].notice


def _without_sizes(study):
    return [replace(trial, size_bytes=None) for trial in study.trials]


def test_a_model_that_meets_the_limits_leaves_no_doubt(problem, study, fastest_ms):
    lucky = replace(study.trials[-1], ratio=0.8 * fastest_ms / 20)
    found = problem.strategy("guided").ask(
        replace(study, goal=Goal(max_latency_ms=0.85 * fastest_ms), trials=(*study.trials[:-1], lucky)), 1
    )
    assert found[0].notice is None


def test_the_job_is_told_once(bench):
    job_id = bench.submit(
        strategy="guided", goal={"max_latency_ms": 2.3}, budget={"seconds": None, "trials": 10}
    )  # a model without branches takes 2 ms; 2.9 are predicted
    bench.run(job_id)
    with bench.database.read_session() as session:
        payloads = [
            event.payload
            for event in session.exec(select(Event).where(Event.job_id == job_id, Event.kind == "notice"))
            if event.payload.get("about") == "goal"
        ]
    assert len(payloads) == 1
    assert "goal.max_latency_ms is 2.3 ms" in payloads[0]["message"]
