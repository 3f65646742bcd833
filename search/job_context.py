"""A job's request and what its earlier stages found, parsed; kept while the row says the same."""

from collections import OrderedDict
from functools import cached_property

from infra.database.models import Job
from infra.database.models import JsonObject
from search.prepared import Prepared
from search.presets import FRACTIONS
from search.presets import Preset
from search.presets import presets
from search.requests import JobRequest
from search.space import SearchSpace
from search.space import build_space
from search.strategies.base import Strategy

_KEPT = 32
_contexts: OrderedDict[str, tuple[JsonObject, JsonObject | None, "JobContext"]] = OrderedDict()


class JobContext:
    """What does not change from trial to trial.

    Args:
        request: What the user asked for.
        prepared: What the stages before the search found.
    """

    def __init__(self, request: JobRequest, prepared: Prepared) -> None:
        self.request = request
        self.prepared = prepared

    @cached_property
    def space(self) -> SearchSpace:
        """The search space.

        Raises:
            InvalidInputError: If nothing is left to search.
        """
        prepared = self.prepared
        return build_space(prepared.anatomy, prepared.capabilities, self.request.space, prepared.graph_defaults)

    @cached_property
    def presets(self) -> list[Preset]:
        """Recipes that are tried before the strategy is asked."""
        # The solver of ``guided`` starts with better models than uniform ones.
        fractions = (1.0,) if self.request.strategy == "guided" else FRACTIONS
        return presets(self.space, self.request.space, fractions)

    @cached_property
    def strategy(self) -> Strategy:
        """What decides; its proposals follow from the study alone."""
        from search.strategies import make_strategy  # loads Optuna

        return make_strategy(self.request, self.prepared, self.space)


def job_context(job: Job) -> JobContext:
    """Return the context of a job.

    The row is compared with the one that the kept context was parsed from, so what is kept only saves time.

    Raises:
        pydantic.ValidationError: If an earlier stage wrote something else.
    """
    kept = _contexts.pop(job.id, None)
    if kept is None or (kept[0], kept[1]) != (job.request, job.prepared):
        context = JobContext(JobRequest.model_validate(job.request), Prepared.load(job.prepared))
        kept = (job.request, job.prepared, context)
    _contexts[job.id] = kept
    while len(_contexts) > _KEPT:
        _contexts.popitem(last=False)
    return kept[2]
