"""What is remembered between ticks saves time and changes nothing."""

from search import branch_costs
from search import latency_model
from search.remembered import Remembered
from search.remembered import context_key
from search.requests import Goal
from search.strategies import guided
from search.study import StudyState
from tests.unit.search.guided_problem import Problem


def test_the_oldest_values_are_forgotten_and_contexts_kept_apart() -> None:
    memory: Remembered[int] = Remembered(2)
    assert memory.get("a", "x", lambda: 1) == 1
    assert memory.get("b", "x", lambda: 2) == 2
    assert memory.get("a", "x", lambda: 3) == 1
    assert memory.get("a", "y", lambda: 4) == 4  # forgets ("b", "x")
    assert memory.get("b", "x", lambda: 5) == 5


def test_context_keys_name_the_content() -> None:
    first, again, other = Problem(seed=0), Problem(seed=0), Problem(seed=1)
    assert context_key(first.database(), first.table()) == context_key(again.database(), again.table())
    assert context_key(first.database()) != context_key(other.database())


def proposals(problem: Problem, trials: int) -> list[str]:
    """Digests of a search in which every proposal becomes a trial."""
    strategy, records = problem.strategy(), []
    for number in range(trials):
        study = StudyState("same job", 0, Goal(), tuple(records), number / trials)
        records.append(problem.record(number, strategy.ask(study, 1)[0]))
    return [record.digest for record in records]


def test_jobs_of_different_models_do_not_share_what_is_remembered() -> None:
    def fresh(problem: Problem) -> list[str]:
        for memory in (guided._choices, latency_model._designs, branch_costs._times):
            memory._values.clear()
        return proposals(problem, 16)

    alone = [fresh(Problem(seed=0)), fresh(Problem(seed=1))]
    after_another = [proposals(Problem(seed=0), 16), proposals(Problem(seed=1), 16)]
    assert alone == after_another
    assert alone[0] != alone[1]
