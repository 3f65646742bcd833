"""Whether anything that the solver may choose meets the job's goal, by what is predicted: said before time is spent."""

from collections.abc import Sequence

from infra.errors import InfeasibleGoalError
from search.goals import check_reachable
from search.options import Precision
from search.reference_time import ratio_ceiling
from search.reference_time import usual_time_of
from search.requests import Goal
from search.strategies.guided_space import GuidedSpace
from search.study import StudyState
from search.study import TrialRecord

CERTAINLY_SLOWER = 0.7
"""A ceiling below this part of what is predicted for the fastest model is refused; between, the job is told."""
CERTAINLY_LARGER = 0.9
"""The same for a size below this part of the smallest; sizes are known better than times."""


def refuse_out_of_reach(
    space: GuidedSpace, study: StudyState, precisions: Sequence[Precision], other_bytes: float | None
) -> None:
    """Refuse a goal that no choice of options meets.

    Args:
        space: Of the solver, within the goal's size.
        study: With the trials that need no search.
        precisions: Arithmetics that the search may choose.
        other_bytes: What a file holds beside the branches, by the files so far; ``None``: unknown.

    Raises:
        InfeasibleGoalError: If it is clear.
    """
    goal, usual = study.goal, usual_time_of(study.trials)
    if goal.max_latency_ms is not None and usual is not None:
        check_reachable(goal, usual, _fastest(space, precisions), CERTAINLY_SLOWER)
    if goal.max_size_mb is not None and other_bytes is not None:
        smallest = other_bytes + _fewest_bits(space) * space.smallest_bytes
        if goal.max_size_mb * 1e6 < CERTAINLY_LARGER * smallest:
            raise InfeasibleGoalError(
                f"goal.max_size_mb is {goal.max_size_mb:g} MB, but even the smallest allowed model takes about "
                f"{smallest / 1e6:.3g} MB.",
                hint=f"Ask for at least {smallest / 1e6:.3g} MB, or allow more kinds of compression in space.kinds.",
            )


def doubts(
    space: GuidedSpace, study: StudyState, precisions: Sequence[Precision], other_bytes: float | None
) -> str | None:
    """Say in words that nothing is predicted to meet the goal's limits, where it is so; arguments as above.

    The search goes on with what comes closest (:meth:`GuidedSpace.solve`): predictions err.
    """
    goal, ceiling = study.goal, ratio_ceiling(study.goal, study.trials)
    if any(_is_met(trial, goal, ceiling) for trial in study.trials):
        return None
    usual, fastest = usual_time_of(study.trials), _fastest(space, precisions)
    if ceiling is not None and usual is not None and ceiling < fastest:
        return (
            f"goal.max_latency_ms is {goal.max_latency_ms:g} ms, but the fastest allowed model is predicted to take "
            f"{usual * fastest:.3g} ms: the goal may be out of reach, and the search tries the fastest there is."
        )
    if goal.max_size_mb is None:
        return None
    most = space.most_bytes or 0.0
    known = goal.max_size_mb * 1e6 - most if other_bytes is None else other_bytes
    if space.smallest_bytes > most:
        return (
            f"goal.max_size_mb is {goal.max_size_mb:g} MB, but the smallest allowed model is expected to take "
            f"{(known + space.smallest_bytes) / 1e6:.3g} MB: the goal may be out of reach, and the search tries "
            "the smallest there is."
        )
    if ceiling is not None:
        within = [space.least_bytes(ceiling, precision) for precision in precisions]
        if all(least is None or least > most for least in within):
            return (
                f"No allowed model is predicted to take at most {goal.max_latency_ms:g} ms and at most "
                f"{goal.max_size_mb:g} MB: the goal may be out of reach, and the search tries the smallest there is."
            )
    return None


def _fastest(space: GuidedSpace, precisions: Sequence[Precision]) -> float:
    return min(space.reach(precision)[1] for precision in precisions)


def _fewest_bits(space: GuidedSpace) -> float:
    """Part of the options' bytes that is left in the format of fewest bits, which the solver does not know."""
    usual = min(space.bits)
    return min([usual, *(entry.bits for entry in space.space.formats)]) / usual


def _is_met(trial: TrialRecord, goal: Goal, ceiling: float | None) -> bool:
    """Whether a model of the job is as small and as fast as the goal asks, whatever it loses."""
    if trial.outcome != "done" or trial.recipe is None or not goal.fits(trial.size_bytes or float("inf")):
        return False
    return ceiling is None or (trial.ratio is not None and trial.ratio <= ceiling)
