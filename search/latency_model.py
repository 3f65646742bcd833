"""Predicts a candidate's latency from additive branch times, corrected by every candidate that was measured.

    T(recipe) = a + c * layers + sum_g b_g * tau_g(recipe)

``tau_g`` adds the branch times of group ``g`` (attention or feed-forward, by number format; low rank). ``a`` and ``c``
are those of the recipe's arithmetic, and ``a`` has its own value where the embedding tables are stored otherwise than
usual. ``a``, ``c`` and ``b_g`` start at the table's values and are refitted by non-negative least squares on relative
errors, with prior rows that hold them near 1 until the data say otherwise. A prediction decides what is worth
measuring; it is never a result.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from compressors.description import Anatomy
from compressors.recipe import BranchRecipe
from compressors.recipe import FeedForwardRecipe
from compressors.recipe import LayerRecipe
from compressors.recipe import QuantizationRecipe
from compressors.recipe import Recipe
from profilers.types import Estimate
from search.branch_costs import BranchCosts
from search.options import Precision
from search.remembered import Remembered

PRIOR_WEIGHT_MEASURED = 0.1
PRIOR_WEIGHT_COUNTED = 0.01
UNKNOWN_ERROR = 0.5
"""Relative error of counted operations before anything was measured."""
UNCHECKED_ERROR = 0.08
"""Relative error of a table's sums before clearly more candidates were measured than the fit has factors: the table is
interpolated, and wrong factors explain a few observations as well as right ones."""
ENOUGH = 2
"""Observations for each factor, from which on their residuals say how good predictions are."""
LEAST_ERROR = 0.02


class _Designs:
    """Features of the recipes that a process has seen, as rows of one matrix for each context."""

    def __init__(self) -> None:
        self.groups: dict[str, int] = {}
        self.rows: dict[str, int] = {}
        self.matrix = np.zeros((64, 8))

    def add(self, digest: str, features: Mapping[str, float]) -> None:
        row = self.rows[digest] = len(self.rows)
        for group in features:
            self.groups.setdefault(group, len(self.groups))
        rows, columns = self.matrix.shape
        more = (rows if row >= rows else 0, columns if len(self.groups) > columns else 0)
        if any(more):
            self.matrix = np.pad(self.matrix, [(0, more[0]), (0, more[1])])
        for group, time in features.items():
            self.matrix[row, self.groups[group]] = time


_designs: Remembered[_Designs] = Remembered(32)


class Observation(Protocol):
    """A recipe with its digest, and its measured latency ratio: a trial, for example."""

    @property
    def recipe(self) -> Recipe:
        """The recipe."""
        ...

    @property
    def ratio(self) -> float:
        """Measured latency as a fraction of the dense reference's."""
        ...

    @property
    def digest(self) -> str:
        """Of the recipe."""
        ...


@dataclass(frozen=True)
class Measured:
    """An :class:`Observation` without a trial."""

    recipe: Recipe
    ratio: float
    digest: str


class LatencyModel:
    """Additive model of the latency ratio.

    Args:
        costs: Branch times before any candidate was measured.
        anatomy: Shape of the dense model.
        observations: Measured candidates.
        usual: Quantisation that ``costs`` are those of, and that the solver's options have.
    """

    def __init__(
        self,
        costs: BranchCosts,
        anatomy: Anatomy,
        observations: Sequence[Observation] = (),
        usual: QuantizationRecipe | None = None,
    ) -> None:
        self._costs = costs
        self._usual = usual or QuantizationRecipe()
        self._anatomy = anatomy
        # Fixed part and norms always exist; groups appear as observations mention them and have factor 1 before.
        self._factors: dict[str, float] = {}
        self.relative_error = max(UNCHECKED_ERROR, costs.model_error) if costs.measured else UNKNOWN_ERROR
        self.observations = len(observations)
        if observations:
            self._fit(observations)

    def predict(self, recipe: Recipe) -> Estimate:
        """Return the expected latency ratio with an interval of two standard errors of the past predictions."""
        value = max(1e-6, sum(self._factor(group) * time for group, time in self._features(recipe).items()))
        margin = min(0.9, 2.0 * self.relative_error)
        return Estimate(value=value, low=value * (1 - margin), high=value * (1 + margin))

    def fixed_time(self, precision: Precision) -> float:
        """Return the time of a model with all its layers and no branches."""
        layers = self.layer_time(precision) * self._anatomy.layers
        return self._factor("fixed") * self._core(precision) + layers

    def layer_time(self, precision: Precision) -> float:
        """Return the part of :meth:`fixed_time` that removing a whole layer saves, beyond its branches."""
        return self._factor("layers") * self._costs.layer(precision)

    def branch_time(
        self, recipe: BranchRecipe, layer: int, precision: Precision, *, first_token: bool = False
    ) -> float:
        """Return the time of one branch, corrected."""
        time = self._costs.branch(recipe, layer, precision, first_token=first_token)
        return self._factor(_group(recipe, precision, None)) * time

    def _core(self, precision: Precision) -> float:
        return max(0.0, self._costs.fixed(precision) - self._costs.layer(precision) * self._anatomy.layers)

    def _factor(self, group: str) -> float:
        return self._factors.get(group, 1.0)

    def _features(self, recipe: Recipe) -> dict[str, float]:
        present = [index for index, layer in enumerate(recipe.layers) if not layer.removed]
        words, unusual = recipe.quantization.embedding_bits, self._unusual(recipe)
        fixed = "fixed" if words == self._usual.embedding_bits else f"fixed:{words}"
        norms = self._costs.layer(recipe.precision) * len(present)
        features = {fixed: self._core(recipe.precision), "layers": norms}
        cut = self._first_token_layer(recipe, present)
        for index in present:
            first_token = cut is not None and index >= cut
            for branch in _branches(recipe.layers[index]):
                time = self._costs.branch(branch, index, recipe.precision, first_token=first_token)
                group = _group(branch, recipe.precision, unusual)
                features[group] = features.get(group, 0.0) + time
        return features

    def _unusual(self, recipe: Recipe) -> str | None:
        """Scheme of the recipe's 8-bit products, where it is not the usual one."""
        scheme = recipe.quantization.scheme
        return None if scheme == self._usual.scheme else scheme

    def _first_token_layer(self, recipe: Recipe, present: Sequence[int]) -> int | None:
        """The last layer that looks at other tokens: from there on only the first token is computed."""
        if not recipe.graph.first_token_head or self._anatomy.task != "sequence-classification":
            return None
        return max((index for index in present if recipe.layers[index].attention.heads != 0), default=None)

    def _fit(self, observations: Sequence[Observation]) -> None:
        context = f"{self._costs.key}:{self._usual.scheme}:{self._usual.embedding_bits}"
        designs = _designs.get(context, "", _Designs)
        for observation in observations:
            if observation.digest not in designs.rows:
                designs.add(observation.digest, self._features(observation.recipe))
        rows = designs.matrix[[designs.rows[observation.digest] for observation in observations]]
        ratios = np.array([observation.ratio for observation in observations])
        groups = sorted(group for group, column in designs.groups.items() if (rows[:, column] > 0).any())
        design = rows[:, [designs.groups[group] for group in groups]] / ratios[:, None]
        weight = PRIOR_WEIGHT_MEASURED if self._costs.measured else PRIOR_WEIGHT_COUNTED
        factors = fit_factors(design, np.ones(len(rows)), weight)
        self._factors = dict(zip(groups, factors.tolist(), strict=True))
        residuals = design @ factors - 1.0
        error = float(np.sqrt((residuals**2).sum() / max(1, len(rows) - len(groups))))
        self.relative_error = max(error, self._least_error(len(rows), len(groups)))

    def _least_error(self, observations: int, factors: int) -> float:
        """Relative error that predictions have at least, whatever the residuals are.

        With enough models measured, the factors have put right what the table was off by; its noise stays.
        """
        if observations > ENOUGH * factors:
            return max(LEAST_ERROR, self._costs.standard_error)
        return max(UNCHECKED_ERROR, self._costs.model_error) if self._costs.measured else UNKNOWN_ERROR / 2


def fit_factors(design: NDArray[np.float64], target: NDArray[np.float64], prior_weight: float) -> NDArray[np.float64]:
    """Solve ``min |design @ x - target|^2 + prior_weight * |x - 1|^2`` for ``x >= 0``.

    Args:
        design: ``[observations, groups]``.
        target: ``[observations]``.
        prior_weight: How many observations the prior is worth.

    Returns:
        ``[groups]``.
    """
    groups = design.shape[1]
    scale = np.sqrt(prior_weight)
    solution, _ = nnls(np.vstack([design, scale * np.eye(groups)]), np.concatenate([target, np.full(groups, scale)]))
    return np.asarray(solution)


def _branches(layer: LayerRecipe) -> list[BranchRecipe]:
    return [layer.attention, layer.feed_forward]


def _group(recipe: BranchRecipe, precision: Precision, scheme: str | None) -> str:
    name = "feed_forward" if isinstance(recipe, FeedForwardRecipe) else "attention"
    number_format = f"int{recipe.bits}" if recipe.bits < 16 else precision
    if recipe.bits == 8 and scheme is not None:
        number_format = f"{number_format}.{scheme}"
    return f"{name}:{number_format}:low_rank" if recipe.rank is not None else f"{name}:{number_format}"
