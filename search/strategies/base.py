"""What a strategy is."""

from dataclasses import dataclass
from typing import Any
from typing import Protocol

from compressors.recipe import Recipe
from search.study import StudyState


@dataclass(frozen=True)
class Proposal:
    """A recipe worth a trial.

    Attributes:
        recipe: Canonical recipe.
        source: Name of what proposed it.
        params: The sampler's parameters that gave the recipe.
        sampler_state: JSON that the sampler wants back with the trial.
        notice: What the job's watchers should know about its goal; they are told once.
    """

    recipe: Recipe
    source: str
    params: dict[str, Any] | None = None
    sampler_state: dict[str, Any] | None = None
    notice: str | None = None


class Strategy(Protocol):
    """Decides what to try next."""

    @property
    def name(self) -> str:
        """Name that trials carry as their source."""
        ...

    def ask(self, study: StudyState, count: int) -> list[Proposal]:
        """Return up to ``count`` proposals, none with a digest that the study already has.

        A pure function of ``study``: a strategy that lost its memory proposes the same. Fewer than ``count`` proposals
        mean that nothing new could be found.
        """
        ...


def ask_seed(study: StudyState, offset: int = 0, attempt: int = 0) -> int:
    """Seed for the next proposal: differs with the study's seed, the number of its trials and the attempt."""
    from numpy.random import SeedSequence

    entropy = [study.seed & 0xFFFFFFFF, len(study.trials) + offset, attempt]
    return int(SeedSequence(entropy).generate_state(1)[0])
