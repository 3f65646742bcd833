"""Search over combinations of options by what they do to the whole model, in stages.

Errors of branches do not add up: the solver's answer is a start, not the end. Many starts (solutions for different unit
weights, as in SPDY; Frantar and Alistarh 2022) compete on a little text, few on all of it; the best are then mutated
and selected in the same way (EvoPress; Sieberling et al. 2024, arXiv:2410.14649). Nothing here knows what an option is.
"""

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field

Choice = tuple[int, ...]
"""Index of the option of each unit."""
Score = Callable[[Choice, int], float]
"""``score(choice, parts)``: divergence on the first ``parts`` parts of the text; lower is better."""

KEEP = 0.25
"""Share of the candidates that goes on to the next stage."""
PARENTS = 2
PATIENCE = 6
"""Generations without a better model after which the search ends."""


@dataclass
class Explorer:
    """Finds choices of low divergence.

    Attributes:
        score: How good a choice is.
        stages: Number of parts of the text.
        expired: Whether the time is up; asked between evaluations.
        evaluations: Scores that were computed, all stages together.
        asked: Choices that were handed in, those that came up before included.
    """

    score: Score
    stages: int
    expired: Callable[[], bool]
    evaluations: int = 0
    asked: int = 0
    _known: dict[tuple[Choice, int], float] = field(default_factory=dict)

    @property
    def hit_rate(self) -> float:
        """Share of the choices handed in that had been scored before: many weights, one solution (SPDY)."""
        return 1 - len({choice for choice, _ in self._known}) / max(1, self.asked)

    def search(
        self, starts: Sequence[Choice], offspring: Callable[[Sequence[Choice]], Iterable[Choice]]
    ) -> list[tuple[Choice, float]]:
        """Return the choices that were scored on all of the text, best first.

        The first start is always among them: the result is never worse than it.

        Args:
            starts: Where to begin.
            offspring: Gives neighbours of some parents within the same budget.
        """
        self.asked += len(starts)
        finals = {starts[0]: self._full(starts[0])}
        finals |= self._tournament(starts[1:])
        idle = 0
        while not self.expired() and idle < PATIENCE:
            parents = sorted(finals, key=lambda choice: (finals[choice], choice))[:PARENTS]
            drawn = list(offspring(parents))
            self.asked += len(drawn)
            children = [child for child in drawn if (child, 1) not in self._known]
            if not children:
                idle += 1
                continue
            best = finals[parents[0]]
            finals |= self._tournament(children, rival=parents[0])
            idle = 0 if min(finals.values()) < best else idle + 1
        return sorted(finals.items(), key=lambda item: (item[1], item[0]))

    def _tournament(self, candidates: Sequence[Choice], rival: Choice | None = None) -> dict[Choice, float]:
        """Score on more and more text; a quarter goes on each time, and nobody who is behind the rival by far."""
        left = list(dict.fromkeys(candidates))
        for parts in range(1, self.stages + 1):
            scores: dict[Choice, float] = {}
            for candidate in left:
                if self.expired():
                    break
                scores[candidate] = self._at(candidate, parts)
            left = sorted(scores, key=lambda choice: (scores[choice], choice))
            if parts == self.stages:
                return {choice: scores[choice] for choice in left}
            left = left[: max(1, round(KEEP * len(left)))]
            if rival is not None and left and scores[left[0]] > self._at(rival, parts) * 1.1:
                return {}
        return {}

    def _full(self, choice: Choice) -> float:
        return self._at(choice, self.stages)

    def _at(self, choice: Choice, parts: int) -> float:
        if (choice, parts) not in self._known:
            self._known[choice, parts] = self.score(choice, parts)
            self.evaluations += 1
        return self._known[choice, parts]
