"""Optuna samplers, configured for one ask each."""

from collections.abc import Callable
from collections.abc import Container
from dataclasses import dataclass
from dataclasses import field
from typing import Any
from typing import cast

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.samplers import GPSampler
from optuna.samplers import NSGAIISampler
from optuna.samplers import RandomSampler
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from search.requests import Sampler

POPULATION = 20
STARTUP = 10


Distributions = dict[str, BaseDistribution]
FloatArray = np.ndarray[tuple[int], np.dtype[np.float64]]
Vectors = dict[int, list[float]]


class _FixedSpace:
    """Says at once which parameters there are; samplers would otherwise compare those of all trials at each ask."""

    distributions: Distributions

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Distributions:
        """Return the parameters."""
        return self.distributions


class StatelessNSGAII(NSGAIISampler):
    """NSGA-II whose generations follow from the order of the finished trials.

    Optuna writes generations and parents into attributes of trials and study while it asks. Here the first
    ``population_size`` finished trials are generation 0, the next generation 1, and so on: nothing has to be kept
    beside the trials themselves, and presets are parents like all others.
    """

    def __init__(self, *, population_size: int, seed: int, parents: dict[int, list[FrozenTrial]]) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._size = population_size
        self._parents = parents

    def get_trial_generation(self, study: Study, trial: FrozenTrial) -> int:
        """Return the generation that a trial asked now belongs to."""
        return len(self._finished(study)) // self._size

    def get_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the trials of one generation."""
        return self._finished(study)[generation * self._size : (generation + 1) * self._size]

    def get_parent_population(self, study: Study, generation: int) -> list[FrozenTrial]:
        """Return the elite that the trials of ``generation`` descend from."""
        for number in range(1, generation + 1):
            if number not in self._parents:
                self._parents[number] = self.select_parent(study, number)
        return self._parents[generation]

    @staticmethod
    def _finished(study: Study) -> list[FrozenTrial]:
        return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


class _Window:
    """A study that shows some of its finished trials only, and all the running ones."""

    def __init__(self, study: Study, numbers: Container[int]) -> None:
        self._study = study
        self._numbers = numbers

    def __getattr__(self, name: str) -> object:
        return getattr(self._study, name)

    def _get_trials(self, **options: Any) -> list[FrozenTrial]:
        trials = self._study._get_trials(**options)
        return [trial for trial in trials if trial.number in self._numbers or trial.state == TrialState.RUNNING]


class _TPE(_FixedSpace, TPESampler):
    """TPE for long studies: the time of an ask does not grow with the number of trials.

    It converts each finished trial once in the life of a study, learns from those in :attr:`window`, and of its
    candidates proposes the best one that is new, so that it need not be asked again.
    """

    vectors: Vectors
    window: Container[int] | None
    is_new: Callable[[dict[str, Any]], bool]

    def _sample(self, study: Study, trial: FrozenTrial, search_space: Distributions) -> dict[str, Any]:
        shown = study if self.window is None else cast("Study", _Window(study, self.window))
        return super()._sample(shown, trial, search_space)

    def _compute_acquisition_func(self, samples: dict[str, FloatArray], mpe_below: Any, mpe_above: Any) -> FloatArray:
        values = np.array(super()._compute_acquisition_func(samples, mpe_below, mpe_above))
        if samples.keys() != self.distributions.keys():
            return values
        known = values.copy()
        for index in np.argsort(-values, kind="stable"):
            params = {name: kind.to_external_repr(samples[name][index]) for name, kind in self.distributions.items()}
            if self.is_new(params):
                return known
            known[index] = -np.inf
        return values

    def _get_internal_repr(
        self, trials: list[FrozenTrial], search_space: Distributions, study: Study
    ) -> dict[str, FloatArray]:
        if search_space.keys() != self.distributions.keys():
            return dict(super()._get_internal_repr(trials, search_space, study))
        rows = [row for trial in trials if (row := self._vector(trial, study)) is not None]
        matrix = np.array(rows, dtype=np.float64).reshape(len(rows), len(self.distributions))
        columns = {name: np.ascontiguousarray(matrix[:, i]) for i, name in enumerate(self.distributions)}
        return {name: columns[name] for name in search_space}

    def _vector(self, trial: FrozenTrial, study: Study) -> list[float] | None:
        known = self.vectors.get(trial.number)
        if known is not None:
            return known
        params = self._get_params(trial, study)
        if not self.distributions.keys() <= params.keys():
            return None
        vector = [kind.to_internal_repr(params[name]) for name, kind in self.distributions.items()]
        if trial.state.is_finished():
            self.vectors[trial.number] = vector
        return vector


class _NSGAII(_FixedSpace, StatelessNSGAII):
    pass


class _GP(_FixedSpace, GPSampler):
    pass


@dataclass
class Memory:
    """What follows from the finished trials of a study, for its next samplers. Only saves time.

    Attributes:
        vectors: Of ``tpe``: parameters of finished trials as the sampler counts them.
        parents: Of ``nsga2``: the elite of each generation.
    """

    vectors: Vectors = field(default_factory=dict)
    parents: dict[int, list[FrozenTrial]] = field(default_factory=lambda: {0: []})


def make_sampler(
    name: Sampler,
    seed: int,
    distributions: Distributions,
    memory: Memory,
    window: Container[int] | None,
    is_new: Callable[[dict[str, Any]], bool],
) -> BaseSampler:
    """Return a fresh sampler.

    Args:
        name: ``tpe`` (Watanabe 2023, multi-objective: Ozaki et al. 2022), ``nsga2`` (Deb et al. 2002), ``gp``
            (expected hypervolume improvement under a Gaussian process) or ``random``.
        seed: Seed of everything that the sampler draws.
        distributions: The parameters; all trials of the study have exactly these.
        memory: Give the same one whenever the same study is asked.
        window: Numbers of the trials that ``tpe`` learns from; ``None``: all of them.
        is_new: Whether parameters lead to a recipe that was not tried; ``tpe`` chooses among those that do.
    """
    sampler: _TPE | _NSGAII | _GP
    if name == "tpe":
        sampler = _TPE(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)
        sampler.vectors, sampler.window, sampler.is_new = memory.vectors, window, is_new
    elif name == "nsga2":
        sampler = _NSGAII(population_size=POPULATION, seed=seed, parents=memory.parents)
    elif name == "gp":
        sampler = _GP(seed=seed, n_startup_trials=STARTUP, deterministic_objective=False)
    else:
        return RandomSampler(seed=seed)
    sampler.distributions = distributions
    return sampler
