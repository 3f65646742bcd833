"""Uniform random search: the baseline that every other strategy has to beat."""

import random

from search.space import SearchSpace
from search.strategies.base import Proposal
from search.strategies.base import ask_seed
from search.strategies.novelty import nearest_new
from search.strategies.novelty import random_params
from search.study import StudyState


class RandomStrategy:
    """Draws every parameter independently and uniformly."""

    name = "random"

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def ask(self, study: StudyState, count: int) -> list[Proposal]:
        """Return up to ``count`` new recipes; see :class:`search.strategies.base.Strategy`."""
        proposals: list[Proposal] = []
        seen = set(study.digests)
        for offset in range(count):
            seed = ask_seed(study, offset)
            drawn = random_params(self._space, random.Random(seed))  # noqa: S311
            params = nearest_new(self._space, drawn, seen, seed)
            if params is None:
                break
            recipe = self._space.to_recipe(params)
            seen.add(recipe.digest)
            proposals.append(Proposal(recipe, self.name, dict(params), {"seed": seed}))
        return proposals
