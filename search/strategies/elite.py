"""Which trials of a long study a sampler learns from: the best ones and the newest ones."""

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from search.pareto import non_domination_ranks

NEWEST = 200
"""The parzen estimators of TPE weigh older trials less anyway."""
BEST = 50
"""More than the samplers' number of good trials, which is at most 25."""
_AT_ONCE = 50


class Elite:
    """The best and the newest completed trials, told one after another. Which ones follows from their order alone."""

    def __init__(self) -> None:
        self._best: list[tuple[int, FrozenTrial]] = []
        self._older: list[tuple[int, FrozenTrial]] = []
        self._newest: list[tuple[int, FrozenTrial]] = []

    def add(self, number: int, trial: FrozenTrial) -> None:
        """Add the next trial.

        Args:
            number: Its number in the study.
            trial: Its values and constraints; trials that have not completed are left out.
        """
        if trial.state != TrialState.COMPLETE:
            return
        self._newest.append((number, trial))
        if len(self._newest) > NEWEST:
            self._older.append(self._newest.pop(0))
        if len(self._older) >= _AT_ONCE:
            self._best = _best([*self._best, *self._older])
            self._older.clear()

    def window(self) -> frozenset[int] | None:
        """Return the numbers of the trials to learn from, at most 300; ``None`` while those are all."""
        if not self._best:
            return None
        return frozenset(number for number, _ in [*self._best, *self._older, *self._newest])


def _best(trials: Sequence[tuple[int, FrozenTrial]]) -> list[tuple[int, FrozenTrial]]:
    """Return :data:`BEST` of the trials: feasible before infeasible, front after front; a longer front is thinned."""
    violations = [sum(max(0.0, value) for value in trial.constraints.values()) for _, trial in trials]
    feasible = [index for index, violation in enumerate(violations) if violation == 0]
    ranks = non_domination_ranks([trials[index][1].values for index in feasible]).tolist()
    chosen: list[int] = []
    for rank in range(max(ranks, default=-1) + 1):
        front = [index for index, other in zip(feasible, ranks, strict=True) if other == rank]
        front.sort(key=lambda index: trials[index][1].values)
        places = np.linspace(0, len(front) - 1, min(BEST - len(chosen), len(front)))
        chosen += [front[round(place)] for place in places]
    infeasible = sorted(set(range(len(trials))).difference(feasible), key=lambda index: violations[index])
    return [trials[index] for index in sorted(chosen + infeasible[: BEST - len(chosen)])]
