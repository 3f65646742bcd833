"""Before trials are spent: which combinations of options keep the outputs, at latencies that are of interest."""

import time
from collections.abc import Iterable
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np

from compressors.options.branches import BranchLibrary
from compressors.options.explore import Choice
from compressors.options.explore import Explorer
from compressors.options.scoring import ScoringSet
from compressors.options.stitch import StitchedModel
from compressors.recipe import Recipe
from infra.database.models import JsonObject
from search.branches import allowed_units
from search.estimator import branch_costs
from search.latency_model import LatencyModel
from search.latency_model import Measured
from search.menu import Costs
from search.options import Explored
from search.prepared import Prepared
from search.requests import JobRequest
from search.solver import FloatArray
from search.space import build_space
from search.spdy import fit_weights
from search.strategies.guided_space import GuidedSpace
from workers.operations.bench import bench
from workers.operations.inputs import JobInputs
from workers.operations.options import scoring_examples
from workers.runner.operation import OperationContext

PARTS = (0.0625, 0.25, 1.0)
"""Shares of the scoring texts that candidates see one after another."""
STARTS = 16
WEIGHT_SPREAD = 0.4
"""Standard deviation of the logarithms of random unit weights."""
SHARPNESS = (0.8, 1.0)
CHILDREN = 16
"""Mutants of a generation; a surrogate picks them from several times as many."""
DRAWS = 6
SOLUTIONS = 4
"""Solutions with learnt weights among the children of a generation."""
SURROGATE_NOISE = 0.15
PRIOR_WEIGHT = 4.0
GRID = tuple(step / 16 for step in range(17))
"""Positions between the slowest model and the fastest at which the solver's answers are looked at first."""
KEPT = 2
"""Recipes that are returned for each target."""


def explore(arguments: JsonObject, context: OperationContext) -> JsonObject:
    """``{"inputs", "request", "prepared", "observations", "divergences", "max_seconds"} -> {"explored"}``.

    Targets are the latencies at which the solver's own answers have the ``divergences``; ``observations`` are recipes
    with their measured ratios.
    """
    inputs = JobInputs.model_validate(arguments["inputs"])
    request, prepared = JobRequest.model_validate(arguments["request"]), Prepared.load(arguments["prepared"])
    assert prepared.options is not None
    seen = [
        Measured(recipe := Recipe.model_validate(entry["recipe"]), entry["ratio"], recipe.digest)
        for entry in arguments["observations"]
    ]
    usual = prepared.graph_defaults.quantization
    model = LatencyModel(branch_costs(request, prepared), prepared.anatomy, seen, usual)
    space = build_space(prepared.anatomy, prepared.capabilities, request.space, prepared.graph_defaults)
    units = allowed_units(prepared.options, space, prepared.latency_table)
    solver = GuidedSpace(units, space, model, drops=prepared.options.drops)
    work = bench(inputs, context)
    library = BranchLibrary(work.network, work.calibration, space.dense_recipe())
    scoring = ScoringSet.collect(scoring_examples(work), PARTS)
    exploration = Exploration(library, scoring, solver, model, inputs.seed)
    found = []
    ratios = exploration.ratios(arguments["divergences"])
    for number, explored in enumerate(exploration.run(ratios, arguments["max_seconds"])):
        found.append(explored)
        hits = round(exploration.hit_rate, 3)
        context.progress({"doing": "exploring", "done": number + 1, "of": len(ratios), "hit_rate": hits})
    ordered = [entry for rank in zip_longest(*found) for entry in rank if entry is not None]  # winners first
    return {"explored": [entry.model_dump(mode="json") for entry in ordered]}


class Exploration:
    """Searches combinations for several latency ratios; what one target found is where the next begins.

    Args:
        library: Branches of the model under any recipe.
        scoring: The text, in as many parts as there are stages.
        solver: Units, their predicted times, and the solver.
        model: Predicts the ratios that are returned.
        seed: Of everything random.

    Attributes:
        hit_rate: Of the last target: share of the combinations drawn that had been scored before.
    """

    def __init__(
        self, library: BranchLibrary, scoring: ScoringSet, solver: GuidedSpace, model: LatencyModel, seed: int
    ) -> None:
        self._solver, self._model = solver, model
        self._precision = solver.space.defaults.precision
        self._library, self._stages = library, max(scoring.part) + 1
        self._stitched = StitchedModel(library.network, scoring)
        self._generator = np.random.default_rng(seed)
        self._scores: dict[Choice, float] = {}
        self.hit_rate = 0.0
        self._parts = len(solver.menu.parts)

    def ratios(self, divergences: Sequence[float]) -> list[float]:
        """Return the latency ratios at which the solver's own answers diverge so much, by the first part of the text.

        How far a model can be compressed before it is useless differs between models and devices by far more than a
        fixed share of the reachable latencies could cover.
        """
        reached, costs = [self._solver.ratio_at(position, self._precision) for position in GRID], self._costs()
        solved = [self._solver.solve(costs, ratio, self._precision) for ratio in reached]
        curve = np.maximum.accumulate([self._score(choice, 1) for choice in solved])
        return [float(np.exp(np.interp(level, curve, np.log(reached)))) for level in divergences]

    def run(self, ratios: Sequence[float], seconds: float) -> Iterable[list[Explored]]:
        """Yield the best recipes for each ratio, with about the same share of the time for each."""
        started = time.monotonic()
        before: Choice | None = None
        for number, ratio in enumerate(ratios):
            found = self._search(ratio, before, started + seconds * (number + 1) / len(ratios))
            before = found[0][0]
            yield [self._explored(choice, divergence) for choice, divergence in found[:KEPT]]

    def _search(self, ratio: float, before: Choice | None, deadline: float) -> list[tuple[Choice, float]]:
        explorer = Explorer(self._score, self._stages, lambda: time.monotonic() > deadline)
        found = explorer.search(self._starts(ratio, before), lambda parents: self._children(parents, ratio))
        self.hit_rate = explorer.hit_rate
        return found

    def solve(self, ratio: float) -> Explored:
        """Return the solver's own answer, errors at face value, with its divergence."""
        choice = self._solver.solve(self._costs(), ratio, self._precision)
        return self._explored(choice, self._score(choice, self._stages))

    def _starts(self, ratio: float, before: Choice | None) -> list[Choice]:
        """The solver's answers for different unit weights, and what the last target's winner becomes in this time."""
        starts = [self._solver.solve(self._costs(), ratio, self._precision)]
        for number in range(STARTS - 1):
            weights = np.exp(self._generator.normal(0.0, WEIGHT_SPREAD, self._parts))
            costs = self._costs(weights, SHARPNESS[number % len(SHARPNESS)])
            starts.append(self._solver.solve(costs, ratio, self._precision))
        return starts + (self._mutants(before, ratio, CHILDREN // 2) if before is not None else [])

    def _children(self, parents: Sequence[Choice], ratio: float) -> list[Choice]:
        """Solutions with unit weights that all scores so far have taught, and the mutants that these favour."""
        weights = self._learnt_weights()
        children: list[Choice] = []
        for number in range(SOLUTIONS):
            noise = np.exp(self._generator.normal(0.0, SURROGATE_NOISE * number, len(weights)))
            children.append(self._solver.solve(self._costs(weights * noise), ratio, self._precision))
        costs = self._costs(weights)
        for parent in parents:
            mutants = self._mutants(parent, ratio, DRAWS * CHILDREN)
            ranked = sorted(mutants, key=lambda choice: (self._solver.menu.cost(costs, choice), choice))
            children += ranked[: CHILDREN // len(parents)]
        return children

    def _mutants(self, parent: Choice, ratio: float, count: int) -> list[Choice]:
        """Neighbours within the time budget, in levels of the options that are not both slower and worse."""
        return self._solver.neighbours(parent, self._costs(), self._precision, count, self._generator, ratio=ratio)

    def _learnt_weights(self) -> FloatArray:
        rows = np.array([self._solver.menu.errors(choice) for choice in self._scores])
        return fit_weights(rows, np.array(list(self._scores.values())), np.ones(self._parts), PRIOR_WEIGHT)

    def _costs(self, weights: FloatArray | None = None, sharpness: float = 1.0) -> Costs:
        return self._solver.menu.costs(weights, sharpness)

    def _score(self, choice: Choice, parts: int) -> float:
        branches = {
            (unit.layer, str(unit.branch)): self._library.get(unit.layer, unit.options[option].recipe)
            for unit, option in zip(self._solver.units, choice, strict=True)
        }
        divergence = self._stitched.divergence(branches, parts=parts)
        if parts == 1:
            self._scores[choice] = divergence
        return divergence

    def _explored(self, choice: Choice, divergence: float) -> Explored:
        recipe = self._solver.recipe(choice, self._precision)
        return Explored(recipe=recipe, ratio=self._model.predict(recipe).value, divergence=divergence)
