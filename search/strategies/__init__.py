"""What to try next: strategies, one a file."""

from search.prepared import Prepared
from search.requests import JobRequest
from search.space import SearchSpace
from search.strategies.base import Strategy


def make_strategy(request: JobRequest, prepared: Prepared, space: SearchSpace) -> Strategy:
    """Return the strategy that the request names.

    Raises:
        InvalidInputError: If ``guided`` is asked for without an option database.
    """
    if request.strategy == "guided":
        from search.strategies.guided import GuidedStrategy

        return GuidedStrategy(request, prepared, space)
    if request.strategy == "random":
        from search.strategies.random import RandomStrategy

        return RandomStrategy(space)
    from search.strategies.direct import DirectStrategy

    return DirectStrategy(space, request.sampler)
