"""``guided``: a solver decides layer by layer; the search decides what the solver cannot know.

What was explored end to end before is tried first, as far as it lies where the goal is. Then four sources take turns.
*Spread* solves for targets along the front with all errors at face value. *Optuna* searches
targets, the shape of the unit weights and global choices. *Surrogate* solves with weights that were learnt from the
candidates evaluated so far. *Refine* mutates the best models within their predicted time. Each is a pure function of
the trials; every proposal costs milliseconds and is new.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal
from typing import NamedTuple
from typing import cast

import numpy as np

from compressors.recipe import Recipe
from infra.errors import InvalidInputError
from search.branches import allowed_merges
from search.branches import allowed_units
from search.branches import nested_mask
from search.estimator import latency_model
from search.formats import NumberFormat
from search.formats import alternatives
from search.formats import has_format
from search.formats import in_format
from search.menu import Costs
from search.options import Explored
from search.options import Precision
from search.prepared import Prepared
from search.reference_time import ratio_ceiling
from search.remembered import Remembered
from search.remembered import context_key
from search.requests import JobRequest
from search.solver import FloatArray
from search.space import SearchSpace
from search.spdy import fit_weights
from search.strategies.base import Proposal
from search.strategies.base import ask_seed
from search.strategies.guided_space import GuidedSpace
from search.strategies.novelty import nearest_new
from search.strategies.proposer import OptunaProposer
from search.strategies.reachable import doubts
from search.strategies.reachable import refuse_out_of_reach
from search.strategies.targets import MOST_LOSS
from search.strategies.targets import measured
from search.strategies.targets import spread_target
from search.strategies.targets import target_ratio
from search.strategies.targets import target_window
from search.study import StudyState
from search.study import TrialRecord

Origin = Literal["spread", "optuna", "surrogate", "refine"]

SPREAD = 6
"""Proposals along the whole front before anything is learnt."""
EARLY: tuple[Origin, ...] = ("surrogate", "surrogate", "surrogate", "optuna")
LATE: tuple[Origin, ...] = ("refine", "surrogate", "refine", "optuna")
REPAIR_AFTER = 0.75
"""Part of the budget after which the best models are tried repaired."""
MOST_REPAIRS = 4
"""A repair takes as long as several trials."""
FORMATS_AFTER = 0.5
"""Part of the budget after which the best models are tried in other number formats ..."""
FORMATS_AFTER_IN_MEMORY = 0.2
"""... or earlier, where the bits of the weights are most of what counts."""
MOST_FORMATS = 6
FORMATS_SHARE = 0.15
"""Part of the trials of ``guided`` that may be spent on other number formats."""
REFINE_AFTER = 0.6
"""Part of the budget after which refinement begins."""
PRIOR_WEIGHT = 0.5
"""See :func:`search.spdy.fit_weights`. In a job there are a few candidates for a dozen weights."""
PROBES = 10
"""Trials that Optuna is told before it is asked."""
OFFSPRING = 32
FORMAT_ORIGIN = "format"
TRIES = 16
WEIGHT_NOISE = 0.3

_Choice = tuple[tuple[int, ...], FloatArray]
"""Option of each unit, and the errors of the parts."""
_choices: Remembered[_Choice | None] = Remembered(50_000)


class Located(NamedTuple):
    """A finished trial, the option that it uses in each unit, and the errors that these come to."""

    record: TrialRecord
    choice: tuple[int, ...]
    errors: FloatArray
    precision: Precision
    ratio: float
    divergence: float


class GuidedStrategy:
    """Solver on top of the option database and the latency model.

    Raises:
        InvalidInputError: If the job has no option database, or the space leaves no options.
    """

    name = "guided"

    def __init__(self, request: JobRequest, prepared: Prepared, space: SearchSpace) -> None:
        if prepared.options is None:
            raise InvalidInputError("This job has no option database.", hint="Use the strategy 'direct'.")
        self._request, self._prepared, self._space = request, prepared, space
        self._units = allowed_units(prepared.options, space, prepared.latency_table)
        self._merges = allowed_merges(prepared.options, space)
        self._drops, self._fixed_bytes = prepared.options.drops, prepared.options.fixed_size_bytes
        given = [prepared.options, prepared.anatomy, request.space, prepared.latency_table]
        self._context = context_key(*(part for part in given if part is not None))
        if not any(len(unit.options) > 1 for unit in self._units):
            raise InvalidInputError("The option database has no choice within space.kinds.", hint="Allow more kinds.")

    def ask(self, study: StudyState, count: int) -> list[Proposal]:
        """Return up to ``count`` new recipes; see :class:`search.strategies.base.Strategy`.

        Raises:
            InfeasibleGoalError: By the latency table and the options' sizes no allowed model is as fast or as small as
                the goal asks.
        """
        guided = self._solver(study)
        notice = self._look_at_goal(guided, study)
        turn = self._turn(guided, study)
        proposals: list[Proposal] = []
        for _ in range(count):
            proposal = turn.propose(proposals)
            if proposal is None:
                break
            proposals.append(proposal)
        return [replace(proposal, notice=notice) for proposal in proposals]

    def _look_at_goal(self, guided: GuidedSpace, study: StudyState) -> str | None:
        """Say at once what would otherwise be found when the time is over: refuse the goal, or return the doubts."""
        if study.goal.max_latency_ms is None and study.goal.max_size_mb is None:
            return None
        others = _other_bytes(study, guided, self._context)
        guided = guided.within(_most_bytes(study, others, self._fixed_bytes))
        precisions = [cast("Precision", name) for name in self._space.precisions]
        if not any(trial.source == self.name for trial in study.trials):
            refuse_out_of_reach(guided, study, precisions, others)
        return doubts(guided, study, precisions, others)

    def solve(self, study: StudyState, ratios: Sequence[float]) -> list[Recipe]:
        """Return the best recipe for each latency ratio by what the study has taught, known or not."""
        return self._turn(self._solver(study), study).solve(ratios)

    def solve_nested(self, study: StudyState, ratios: Sequence[float]) -> list[Recipe]:
        """Return the same for recipes that can be cut one from the other: no branch is wider than in the one before.

        Args:
            study: The study.
            ratios: Latency ratios, the slowest first.
        """
        return self._turn(self._solver(study), study).solve_nested(ratios)

    def _turn(self, guided: GuidedSpace, study: StudyState) -> "_Turn":
        return _Turn(guided, self._context, study, self._request, self._fixed_bytes, self._prepared.explored)

    def _solver(self, study: StudyState) -> GuidedSpace:
        model = latency_model(self._request, self._prepared, study.trials)
        return GuidedSpace(self._units, self._space, model, merges=self._merges, drops=self._drops)


class _Turn:
    """One call of ``ask``: everything that follows from the study is computed once."""

    def __init__(
        self,
        space: GuidedSpace,
        context: str,
        study: StudyState,
        request: JobRequest,
        fixed_bytes: int,
        explored: Sequence[Explored],
    ) -> None:
        self._study, self._goal, self._context = study, study.goal, context
        self._trains_later = request.training is not None
        self._formats_after = FORMATS_AFTER_IN_MEMORY if request.objective == "peak_memory" else FORMATS_AFTER
        self._before = sum(trial.source == GuidedStrategy.name for trial in study.trials)
        self._located = [found for trial in study.trials if (found := _locate(space, context, trial)) is not None]
        self._space = space = space.within(_most_bytes(study, _other_bytes(study, space, context), fixed_bytes))
        self._weights = self._fit_weights(explored)
        self._precision = self._best_precision()
        self._slowest, self._fastest = self._range()
        self._spread = space.focus((self._slowest, self._fastest), np.ones(len(space.menu.parts)))
        self._measured = measured(study.trials)
        window = target_window(self._measured, study.goal, slowest=self._slowest, fastest=self._fastest)
        near = [entry.recipe for entry in explored if window[1] <= entry.ratio <= window[0]]
        self._explored = [recipe for recipe in near if _fits(space, context, recipe)]
        self._focused = space.focus(window, self._weights)
        self._proposer = OptunaProposer(self._focused, request.sampler, GuidedStrategy.name)

    def propose(self, proposals: Sequence[Proposal]) -> Proposal | None:
        """Return the next proposal after ``proposals``, or ``None`` if nothing new is left."""
        number = self._before + len(proposals)
        taken = {*self._study.digests, *(proposal.recipe.digest for proposal in proposals)}
        generator = np.random.default_rng(ask_seed(self._study, len(proposals)))
        origin = self._origin(number)
        recipe: Recipe | None = next((known for known in self._explored if known.digest not in taken), None)
        if recipe is not None:
            return Proposal(recipe, GuidedStrategy.name, sampler_state={"origin": "explored"})
        recipe = self._repaired(taken)
        if recipe is not None:
            return Proposal(recipe, GuidedStrategy.name, sampler_state={"origin": "repair"})
        recipe = self._in_other_format(number, taken)
        if recipe is not None:
            return Proposal(recipe, GuidedStrategy.name, sampler_state={"origin": FORMAT_ORIGIN})
        if origin == "optuna" and self._probes(proposals) < PROBES:
            return self._probe(taken, generator)
        if origin == "spread":
            recipe = self._spread.to_recipe(self._spread.defaults(spread_target(number)))
        elif origin == "surrogate":
            recipe = self._surrogate(number, taken, generator)
        elif origin == "refine":
            recipe = self._refine(number, taken, generator)
        if recipe is None or recipe.digest in taken:
            return next(iter(self._proposer.ask(self._study, 1, offset=len(proposals), taken=taken)), None)
        return Proposal(recipe, GuidedStrategy.name, sampler_state={"origin": origin})

    def solve(self, ratios: Sequence[float]) -> list[Recipe]:
        """Return the solver's recipes for latency ratios, with the learnt weights."""
        precision, costs = self._precision, self._costs(self._weights)
        return [self._space.solve_merged(costs, ratio, precision) for ratio in ratios]

    def solve_nested(self, ratios: Sequence[float]) -> list[Recipe]:
        """Return the same, each recipe within the one before."""
        precision, costs, units = self._precision, self._costs(self._weights), self._space.units
        anatomy = self._space.space.anatomy
        masks, recipes = [nested_mask(unit, anatomy) for unit in units], list[Recipe]()
        for ratio in ratios:
            choice = self._space.solve(costs, ratio, precision, masks)
            recipes.append(self._space.recipe(choice, precision))
            masks = [
                nested_mask(unit, anatomy, unit.options[option]) for unit, option in zip(units, choice, strict=True)
            ]
        return recipes

    def _repaired(self, taken: set[str]) -> Recipe | None:
        """Return one of the best models with a repair that was not tried yet: it takes seconds, so only late."""
        before = sum(trial.recipe is not None and trial.recipe.repair != "none" for trial in self._study.trials)
        if self._trains_later or self._study.progress < REPAIR_AFTER or before >= MOST_REPAIRS:
            return None  # training does the same, and more
        for parent in self._parents():
            assert parent.record.recipe is not None
            update = {"repair": "sequential"}
            recipe = self._space.space.canonical(parent.record.recipe.model_copy(update=update))
            if recipe.repair != "none" and recipe.digest not in taken:
                return recipe
        return None

    def _in_other_format(self, number: int, taken: set[str]) -> Recipe | None:
        """Return one of the best models in a number format that the solver does not know.

        A format that was tried and is behind other models in everything is not tried on further shapes.
        """
        tried = [trial for trial in self._study.trials if (trial.sampler_state or {}).get("origin") == FORMAT_ORIGIN]
        limit = min(MOST_FORMATS, int(FORMATS_SHARE * (number + 1)))
        if self._study.progress < self._formats_after or len(tried) >= limit:
            return None
        for parent in self._parents():
            assert parent.record.recipe is not None
            for number_format in alternatives(self._space.space.formats, self._space.bits):
                if format_is_beaten(number_format, tried, self._study.trials):
                    continue
                recipe = self._space.space.canonical(in_format(parent.record.recipe, number_format))
                if recipe.digest not in taken:
                    return recipe
        return None

    def _range(self) -> tuple[float, float]:
        """Return the slowest and the fastest latency ratio of which a useful model is expected."""
        slowest, fastest = self._space.reach(self._precision)
        if self._goal.max_latency_ms is None and self._space.has_divergences:
            fastest = self._space.fastest_within(self._costs(self._weights), MOST_LOSS, self._precision)
        return slowest, fastest

    def _origin(self, number: int) -> Origin:
        if number < SPREAD:
            return "spread"
        cycle = LATE if self._study.progress >= REFINE_AFTER else EARLY
        return cycle[(number - SPREAD) % len(cycle)]

    def _probes(self, proposals: Sequence[Proposal]) -> int:
        told = [trial for trial in self._study.trials if trial.source == GuidedStrategy.name and trial.params]
        return len(told) + sum(proposal.params is not None for proposal in proposals)

    def _probe(self, taken: set[str], generator: np.random.Generator) -> Proposal | None:
        """Change two parameters of the neutral setting: what Optuna starts from in place of random points."""
        params = self._focused.defaults(float(generator.random()))
        for index in generator.permutation(len(self._focused.parameters))[:2]:
            parameter = self._focused.parameters[index]
            params[parameter.name] = parameter.levels[int(generator.integers(len(parameter.levels)))]
        new = nearest_new(self._focused, params, taken, int(generator.integers(2**31)))
        if new is None:
            return None
        recipe = self._focused.to_recipe(new)
        return Proposal(recipe, GuidedStrategy.name, dict(new), {"origin": "probe"})

    def _surrogate(self, number: int, taken: set[str], generator: np.random.Generator) -> Recipe | None:
        """Solve for a promising target with the learnt weights; with disturbed weights if that is known already."""
        for attempt in range(TRIES):
            ratio = target_ratio(
                self._measured, self._goal, number + attempt, slowest=self._slowest, fastest=self._fastest
            )
            noise = np.exp(generator.normal(0.0, WEIGHT_NOISE * min(attempt, 3) / 3, len(self._weights)))
            choice = self._space.solve(self._costs(self._weights * noise), ratio, self._precision)
            recipe = self._space.recipe(choice, self._precision)
            if recipe.digest not in taken:
                return recipe
        return None

    def _refine(self, number: int, taken: set[str], generator: np.random.Generator) -> Recipe | None:
        """Mutate one of the best models within its predicted time; the surrogate ranks the offspring."""
        parents = self._parents()
        if not parents:
            return None
        parent = parents[number % len(parents)]
        costs, share = self._costs(self._weights), (1.0, 0.97)[number // max(1, len(parents)) % 2]
        children = self._space.neighbours(parent.choice, costs, parent.precision, OFFSPRING, generator, share=share)
        for child in sorted(children, key=lambda choice: (self._space.menu.cost(costs, choice), choice)):
            recipe = self._space.recipe(child, parent.precision)
            if recipe.digest not in taken:
                return recipe
        return None

    def _parents(self) -> list[Located]:
        """Return the models around the goal, the most interesting first."""
        limit = self._goal.max_drop
        small = [found for found in self._located if self._goal.fits(found.record.size_bytes or 0)] or self._located
        if limit is not None:
            near = [found for found in small if found.record.drop is not None]
            feasible = sorted((f for f in near if (f.record.drop or 0.0) <= limit), key=lambda f: f.ratio)
            missed = sorted((f for f in near if (f.record.drop or 0.0) > limit), key=lambda f: f.record.drop or 0.0)
            return feasible[:2] + missed[:1]
        if self._goal.max_latency_ms is not None:
            ceiling = ratio_ceiling(self._goal, self._study.trials) or 0.0
            fast = [found for found in small if found.ratio <= ceiling]
            return sorted(fast, key=lambda f: f.divergence)[:3]
        return sorted(small, key=lambda f: (f.ratio * (f.divergence + 1e-3), f.ratio))[:6]

    def _best_precision(self) -> Precision:
        """Arithmetic of the best model so far; the device's default before there is one."""
        parents = self._parents()
        return parents[0].precision if parents else self._space.space.defaults.precision

    def _costs(self, weights: FloatArray) -> Costs:
        return self._space.menu.costs(weights)

    def _fit_weights(self, explored: Sequence[Explored]) -> FloatArray:
        """Learn how much the errors of each part count from what was tried, and from what was scored before."""
        prior = np.ones(len(self._space.menu.parts))
        known = [(found.errors, found.divergence) for found in self._located]
        for entry in explored:
            choice = _options_of(self._space, self._context, entry.recipe, entry.recipe.digest)
            if choice is not None:
                known.append((choice[1], entry.divergence))
        if not known:
            return prior
        errors, losses = zip(*known, strict=True)
        return fit_weights(np.array(errors), np.array(losses), prior, PRIOR_WEIGHT, self._space.menu.largest)


def format_is_beaten(
    number_format: NumberFormat, tried: Sequence[TrialRecord], everybody: Sequence[TrialRecord]
) -> bool:
    """Whether a format has been tried, and never brought a model that no other equals in everything.

    Args:
        number_format: The format.
        tried: Trials of models in other formats than that of the search.
        everybody: All trials.
    """
    finished = [
        trial
        for trial in tried
        if trial.outcome == "done" and trial.recipe is not None and has_format(trial.recipe, number_format)
    ]
    return bool(finished) and all(_is_equalled(trial, everybody) for trial in finished)


def _is_equalled(trial: TrialRecord, everybody: Sequence[TrialRecord]) -> bool:
    own = trial.objectives
    others = [other.objectives for other in everybody if other.digest != trial.digest]
    return own is None or any(
        other is not None and all(a <= b for a, b in zip(other, own, strict=True)) for other in others
    )


def _most_bytes(study: StudyState, others: float | None, fixed_bytes: int) -> float | None:
    """Return how many bytes the branches may take together; ``None``: there is no limit.

    Args:
        study: With the goal.
        others: What files hold beside the branches (:func:`_other_bytes`) ...
        fixed_bytes: ... and what is taken for it before there is one.
    """
    if study.goal.max_size_mb is None:
        return None
    return study.goal.max_size_mb * 1e6 - (fixed_bytes if others is None else others)


def _other_bytes(study: StudyState, space: GuidedSpace, context: str) -> float | None:
    """Return what files hold beside the branches, by the difference that the files so far show.

    Also by those that were too large to be evaluated. ``None`` while there is no file, and where no size is asked for.
    """
    if study.goal.max_size_mb is None:
        return None
    others = [
        trial.size_bytes - space.stored_bytes(found[0])
        for trial in study.trials
        if trial.size_bytes and (found := _found(space, context, trial)) is not None
    ]
    return float(np.median(others)) if others else None


def _fits(space: GuidedSpace, context: str, recipe: Recipe) -> bool:
    """Whether a recipe is expected to be small enough; those with options that the database lacks get a try."""
    found = _options_of(space, context, recipe, recipe.digest)
    return found is None or space.fits(found[0])


def _found(space: GuidedSpace, context: str, trial: TrialRecord) -> _Choice | None:
    """Return the options that a trial uses; ``None`` where these are not the database's."""
    recipe = trial.recipe
    if recipe is None or (trial.sampler_state or {}).get("origin") == FORMAT_ORIGIN:
        return None
    return _options_of(space, context, recipe, trial.digest)


def _locate(space: GuidedSpace, context: str, trial: TrialRecord) -> Located | None:
    recipe, loss = trial.recipe, trial.divergence if trial.divergence is not None else trial.loss
    if (
        recipe is None
        or recipe.repair != "none"
        or trial.outcome != "done"
        or trial.taught_ratio is None
        or loss is None
    ):
        return None  # what a repair gave back would be taken for the options' merit
    found = _found(space, context, trial)
    if found is None:
        return None
    return Located(trial, *found, recipe.precision, trial.taught_ratio, loss)


def _options_of(space: GuidedSpace, context: str, recipe: Recipe, digest: str) -> _Choice | None:
    """Return the options that a recipe uses, found once; ``None`` where these are not the database's."""
    return _choices.get(context, digest, lambda: _choice(space, recipe))


def _choice(space: GuidedSpace, recipe: Recipe) -> _Choice | None:
    choice = space.locate(recipe)
    return None if choice is None else (choice, space.menu.errors(choice))
