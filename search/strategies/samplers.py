"""Optuna samplers, configured for one ask each."""

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
"""``{number of a finished trial: its parameters as the sampler counts them}``."""


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

    def __init__(self, *, population_size: int, seed: int) -> None:
        super().__init__(population_size=population_size, seed=seed)
        self._size = population_size
        self._parents: dict[int, list[FrozenTrial]] = {0: []}

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


class _TPE(_FixedSpace, TPESampler):
    """TPE that converts each finished trial once in the life of a study, not at every ask."""

    vectors: Vectors

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


def make_sampler(name: Sampler, seed: int, distributions: Distributions, vectors: Vectors | None = None) -> BaseSampler:
    """Return a fresh sampler.

    Args:
        name: ``tpe`` (Watanabe 2023, multi-objective: Ozaki et al. 2022), ``nsga2`` (Deb et al. 2002), ``gp``
            (expected hypervolume improvement under a Gaussian process) or ``random``.
        seed: Seed of everything that the sampler draws.
        distributions: The parameters; all trials of the study have exactly these.
        vectors: Filled by ``tpe``; give the same dictionary whenever the same study is asked.
    """
    sampler: _TPE | _NSGAII | _GP
    if name == "tpe":
        sampler = _TPE(seed=seed, n_startup_trials=STARTUP, multivariate=True, constant_liar=True)
        sampler.vectors = {} if vectors is None else vectors
    elif name == "nsga2":
        sampler = _NSGAII(population_size=POPULATION, seed=seed)
    elif name == "gp":
        sampler = _GP(seed=seed, n_startup_trials=STARTUP, deterministic_objective=False)
    else:
        return RandomSampler(seed=seed)
    sampler.distributions = distributions
    return sampler
