"""``direct``: Optuna over the raw parameters of every layer, with any of its samplers."""

from search.requests import Sampler
from search.space import SearchSpace
from search.strategies.base import Proposal
from search.strategies.proposer import OptunaProposer
from search.study import StudyState


class DirectStrategy:
    """Searches heads, widths, ranks, sparsities and bits of each layer without any knowledge of the model."""

    name = "direct"

    def __init__(self, space: SearchSpace, sampler: Sampler = "tpe") -> None:
        self._proposer = OptunaProposer(space, sampler, self.name)

    def ask(self, study: StudyState, count: int) -> list[Proposal]:
        """Return up to ``count`` new recipes; see :class:`search.strategies.base.Strategy`."""
        return self._proposer.ask(study, count)
