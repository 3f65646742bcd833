"""Optuna as a function of trial records.

The study lives in memory and is a function of the trial rows. Between asks it is kept, so that an ask converts only
what is new; without it (another process, after a crash) it is rebuilt and proposes the same.
"""

from collections import OrderedDict
from collections.abc import Iterable
from statistics import median

import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from search.promote import quality_limit
from search.reference_time import ratio_ceiling
from search.requests import Goal
from search.requests import Sampler
from search.space import Parameter
from search.space import Params
from search.space import Searchable
from search.strategies.base import Proposal
from search.strategies.base import ask_seed
from search.strategies.elite import Elite
from search.strategies.novelty import nearest_new
from search.strategies.samplers import Memory
from search.strategies.samplers import make_sampler
from search.study import Objectives
from search.study import StudyState
from search.study import TrialRecord

ATTEMPTS = 4
KEPT_STUDIES = 16
OBJECTIVES = 3


class _KeptStudy:
    """An Optuna study and the digests of the finished trials that it was made from, in order."""

    def __init__(self) -> None:
        self.study: Study = optuna.create_study(directions=["minimize"] * OBJECTIVES)
        self.digests: list[str] = []
        self.memory = Memory()
        self.elite = Elite()


_kept: OrderedDict[tuple[str, str], _KeptStudy] = OrderedDict()


class OptunaProposer:
    """Multi-objective Optuna: latency ratio, loss of quality and stored size.

    Args:
        space: Parameters and what they mean. Only trials that have exactly these parameters are told to Optuna.
        sampler: Name of the sampler.
        source: Name that the proposals carry.
    """

    def __init__(self, space: Searchable, sampler: Sampler, source: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._sampler: Sampler = sampler
        self._source = source
        self._distributions = {parameter.name: _distribution(parameter) for parameter in space.parameters}

    def ask(self, study: StudyState, count: int, *, offset: int = 0, taken: Iterable[str] = ()) -> list[Proposal]:
        """Return up to ``count`` new recipes; see :class:`search.strategies.base.Strategy`.

        Args:
            study: The trials so far.
            count: How many recipes.
            offset: Number of trials that will come before, though the study does not have them yet.
            taken: Digests of those.
        """
        kept = self._synchronise(study)
        optuna_study = kept.study
        running = [t.params for t in study.trials if t.outcome == "running" and t.params and self._is_mine(t)]
        temporary = [self._add_running(optuna_study, params) for params in running]
        seen = {*study.digests, *taken}
        proposals: list[Proposal] = []
        try:
            for position in range(offset, offset + count):
                proposal = self._propose(kept, study, position, seen, temporary)
                if proposal is None:
                    break
                seen.add(proposal.recipe.digest)
                proposals.append(proposal)
        finally:
            # Failed trials are invisible to samplers: what was only asked leaves no trace in the next ask.
            for number in temporary:
                optuna_study.tell(number, state=TrialState.FAIL)
        return proposals

    def _propose(
        self, kept: _KeptStudy, study: StudyState, offset: int, seen: set[str], temporary: list[int]
    ) -> Proposal | None:
        def is_new(drawn: dict[str, object]) -> bool:
            return self._space.to_recipe(self._decode(drawn)).digest not in seen

        params: Params = {}
        seed = 0
        for attempt in range(ATTEMPTS):
            seed = ask_seed(study, offset, attempt)
            kept.study.sampler = make_sampler(
                self._sampler, seed, self._distributions, kept.memory, kept.elite.window(), is_new
            )
            trial = kept.study.ask(fixed_distributions=self._distributions)
            temporary.append(trial.number)
            # ``trial.params`` would be a deep copy of all of them.
            params = self._decode(kept.study.get_trials(deepcopy=False)[trial.number].params)
            if self._space.to_recipe(params).digest not in seen:
                break
        new = nearest_new(self._space, params, seen, seed)
        if new is None:
            return None
        state = {"sampler": self._sampler, "seed": seed}
        return Proposal(self._space.to_recipe(new), self._source, dict(new), state)

    def _synchronise(self, study: StudyState) -> _KeptStudy:
        known = study.finished
        digests = [trial.digest for trial in known]
        key = (study.job_id, f"{self._source}:{self._sampler}")
        kept = _kept.pop(key, None)
        if kept is None or kept.digests != digests[: len(kept.digests)]:
            kept = _KeptStudy()
        for place in range(len(kept.digests), len(known)):
            trial = known[place]
            if not self._is_mine(trial):
                continue
            # Judged by what was known at its end, and not again later: Optuna is told once.
            ceiling = ratio_ceiling(study.goal, known[: place + 1])
            objectives = trial.objectives or _unevaluated(trial, study.goal, known[:place])
            frozen = self._frozen(trial, objectives, study.goal, ceiling)
            kept.elite.add(len(kept.study.get_trials(deepcopy=False)), frozen)
            kept.study.add_trial(frozen)
        kept.digests = digests
        _kept[key] = kept
        while len(_kept) > KEPT_STUDIES:
            _kept.popitem(last=False)
        return kept

    def _is_mine(self, trial: TrialRecord) -> bool:
        return trial.params is not None and trial.params.keys() == self._distributions.keys()

    def _frozen(
        self, trial: TrialRecord, objectives: Objectives | None, goal: Goal, ceiling: float | None
    ) -> FrozenTrial:
        return optuna.trial.create_trial(
            state=TrialState.COMPLETE if objectives else TrialState.FAIL,
            values=list(objectives) if objectives else None,
            params=self._encode(trial.params or {}),
            distributions=self._distributions,
            constraints=_constraints(trial, goal, ceiling) if objectives else None,
        )

    def _add_running(self, optuna_study: Study, params: Params) -> int:
        optuna_study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.RUNNING, params=self._encode(params), distributions=self._distributions
            )
        )
        return len(optuna_study.get_trials(deepcopy=False)) - 1

    def _encode(self, params: Params) -> dict[str, object]:
        return {p.name: p.levels.index(params[p.name]) if p.ordered else params[p.name] for p in self._space.parameters}

    def _decode(self, params: dict[str, object]) -> Params:
        return {
            p.name: p.levels[int(str(params[p.name]))] if p.ordered else params[p.name]  # type: ignore[misc]
            for p in self._space.parameters
        }


def _distribution(parameter: Parameter) -> BaseDistribution:
    if parameter.ordered:
        return IntDistribution(0, len(parameter.levels) - 1)
    return CategoricalDistribution(parameter.levels)


def _unevaluated(trial: TrialRecord, goal: Goal, before: Iterable[TrialRecord]) -> Objectives | None:
    """Return objectives for a model that was too large to be evaluated; ``None`` for any other.

    A constraint says what is wrong with it, and by how much. Its loss, which nobody knows, is a middling one, so that
    it says nothing.
    """
    ratio, size = trial.expected_ratio, trial.size_bytes
    losses = [other.loss for other in before if other.outcome == "done" and other.loss is not None]
    if trial.outcome != "done" or ratio is None or size is None or goal.fits(size) or not losses:
        return None
    return ratio, median(losses), float(size)


def _constraints(trial: TrialRecord, goal: Goal, ceiling: float | None) -> dict[str, float]:
    """Return what the goal asks for, as numbers that are to be at most 0; 0 also where one is not known.

    The same ones for every trial, or ``gp`` would refuse to learn from them.
    """
    constraints: dict[str, float] = {}
    if goal.max_drop is not None:
        limit = quality_limit(goal.max_drop)
        constraints["drop"] = (limit if trial.drop_at_least is None else trial.drop_at_least) - limit
    if goal.max_latency_ms is not None:
        ratio = trial.expected_ratio
        constraints["latency"] = 0.0 if ceiling is None or ratio is None else ratio - ceiling
    if goal.max_size_mb is not None:
        constraints["size"] = 0.0 if trial.size_bytes is None else trial.size_bytes / 1e6 - goal.max_size_mb
    return constraints
