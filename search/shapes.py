"""Which shapes deserve recovery training: faster than the best model so far, and spread over latency.

A shape is what a recipe says about structure. Number formats come after the training: the same trained weights are
tried in each. A shape may lose more than the goal allows, because training gives most of it back; so the shapes that
the search has rejected for their quality are looked at too, and more aggressive ones are added.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from math import log

from pydantic import BaseModel
from pydantic import ConfigDict

from compressors.recipe import LayerRecipe
from compressors.recipe import Recipe
from compressors.recovery.ramp import cubic_fraction
from compressors.recovery.ramp import ramp
from search.estimator import latency_model
from search.goals import meets_drop
from search.latency_model import LatencyModel
from search.prepared import Prepared
from search.presets import Format
from search.presets import formats
from search.presets import likely_winners
from search.presets import uniform
from search.race import SEARCHED
from search.reference_time import ratio_ceiling
from search.requests import JobRequest
from search.space import SearchSpace
from search.space import build_space
from search.study import StudyState
from search.study import TrialRecord

SHAPES = 16
"""Shapes of each family that take part in the race: each takes some 6 % less time than the one before. A goal that one
of them just misses is often met by the next, and a shape that does not train costs nothing."""
SHALLOW = 2
"""Shapes with fewer layers among them."""
MEMBERS = 5
"""Models of a gradual family."""
LARGEST_DROP = 0.08
"""A tried shape that loses more than this at once is left to others: the solver and uniform shapes reach further."""
FASTER = 0.95
"""A shape must be expected to take at most this fraction of the best model's time."""
REACH = 0.35
"""The most aggressive shape takes this fraction of the best model's time."""
UNIFORM = (0.5, 0.42, 0.33, 0.25, 0.21, 0.17, 0.125, 0.083)
LAYERS_KEPT = (0.67, 0.5, 0.33)
NEAR = 0.04
"""Difference in the logarithm of time that does not decide between two shapes."""
NARROWED = "uniform"
"""Origin of shapes whose layers are narrowed alike."""
_RANK = {"explored": 0, "solver": 1, "trial": 2}
"""Origins of what the search has found. Explored combinations were improved and scored as a whole."""


class Shape(BaseModel):
    """A structure to train.

    Attributes:
        recipe: The structure in floating point.
        ratio: Latency ratio in the fastest number format, as predicted before the first training.
        origin: ``explored``, ``solver``, ``trial``, ``uniform``, ``depth`` (layers removed, the rest uniform) or
            ``gradual``.
        number: Number of the trial that it comes from.
    """

    model_config = ConfigDict(frozen=True)

    recipe: Recipe
    ratio: float
    origin: str
    number: int | None = None

    @property
    def family(self) -> str:
        """Shapes of a family are alike: what one of them comes to says something about the others."""
        return SEARCHED if self.origin in _RANK else self.origin


@dataclass(frozen=True)
class Window:
    """Latency ratios between which shapes are looked for."""

    fastest: float
    slowest: float

    def targets(self, count: int) -> list[float]:
        """Return ``count`` ratios, slowest first, evenly spread over the logarithm of time."""
        span = log(self.slowest / self.fastest)
        return [self.slowest * exp(-span * (place + 0.5) / count) for place in range(count)]


def choose_shapes(request: JobRequest, prepared: Prepared, study: StudyState, count: int = SHAPES) -> list[Shape]:
    """Return the shapes to train, the slowest first; none when nothing faster can be proposed.

    For a race that is at most ``count`` of each family; for a gradual run the members of one family: those that the
    solver finds, else uniform ones. A pure function of its arguments.
    """
    space = build_space(prepared.anatomy, prepared.capabilities, request.space, prepared.graph_defaults)
    model = latency_model(request, prepared, study.trials)
    window = latency_window(request, study.trials)
    if request.training is not None and request.training.mode == "gradual":
        solved = _gradual_solved(request, prepared, space, study, model, window.targets(count)[-1])
        if len(solved) > 1:
            return solved
    dense = structure(space.dense_recipe(), space).digest
    found: dict[str, Shape] = {}
    for shape in _candidates(request, prepared, space, study, model, window.targets(count)):
        if shape.recipe.digest != dense and window.fastest * exp(-NEAR) <= shape.ratio <= window.slowest:
            found.setdefault(shape.recipe.digest, shape)
    families: dict[str, list[Shape]] = {}
    for shape in found.values():
        families.setdefault(shape.family, []).append(shape)
    if request.training is not None and request.training.mode == "gradual":
        return _gradual(families.get(NARROWED, []), request, space, model)
    chosen = []
    for family, shapes in families.items():
        chosen += spread(shapes, window.targets(SHALLOW if family == "depth" else count))
    return sorted(chosen, key=lambda shape: -shape.ratio)


def _gradual_solved(
    request: JobRequest, prepared: Prepared, space: SearchSpace, study: StudyState, model: LatencyModel, fastest: float
) -> list[Shape]:
    """Return what the solver says about the steps of the cubic ramp in time, from the dense structure to ``fastest``.

    Each shape can be cut from the one before. None where there is no solver.
    """
    if prepared.options is None or request.strategy != "guided":
        return []
    from search.strategies.guided import GuidedStrategy  # loads Optuna

    solver = GuidedStrategy(request, prepared, space)
    dense = _shape(space.dense_recipe(), "gradual", space, model)
    # Without removing whole branches not every ratio is within reach: the ramp ends where the solver does.
    (last,) = (_shape(recipe, "gradual", space, model) for recipe in solver.solve_nested(study, [fastest]))
    saved = dense.ratio - max(fastest, last.ratio)
    ratios = [dense.ratio - saved * cubic_fraction(step + 1, MEMBERS) for step in range(MEMBERS)]
    members = {dense.recipe.digest: dense}
    for recipe in solver.solve_nested(study, ratios):
        shape = _shape(recipe, "gradual", space, model)
        members.setdefault(shape.recipe.digest, shape)
    return list(members.values())[1:]


def _gradual(
    uniform_shapes: Sequence[Shape], request: JobRequest, space: SearchSpace, model: LatencyModel
) -> list[Shape]:
    """Return the way to the fastest uniform shape, in the steps of the cubic ramp."""
    if not uniform_shapes:
        return []
    target = min(uniform_shapes, key=lambda shape: shape.ratio).recipe
    members: dict[str, Shape] = {}
    for recipe in ramp(space.anatomy, target, MEMBERS, granularity=request.space.ffn_step):
        shape = _shape(recipe, "gradual", space, model)
        members.setdefault(shape.recipe.digest, shape)
    return list(members.values())


def latency_window(request: JobRequest, trials: Sequence[TrialRecord]) -> Window:
    """Return where a healed model would be a gain for the goal.

    Maximum drop: faster than the fastest model that meets it. Latency ceiling: below it. Without a goal: everywhere
    below the dense model.
    """
    goal = request.goal
    measured = [trial for trial in trials if trial.ratio is not None and trial.drop is not None]
    if goal.max_latency_ms is not None:
        ceiling = min(1.0, ratio_ceiling(goal, measured) or 1.0)
        return Window(ceiling * REACH, ceiling)
    if goal.max_drop is None:
        fastest = min((trial.ratio for trial in measured if trial.ratio is not None), default=1.0)
        return Window(fastest * REACH, FASTER)
    best = min((t.ratio for t in measured if t.ratio is not None and meets_drop(t.drop, goal)), default=1.0)
    return Window(best * REACH, best * FASTER)


def structure(recipe: Recipe, space: SearchSpace) -> Recipe:
    """Return the recipe's structure: floating point, nothing masked, no trained weights, in the default graph.

    Zeros that a mask has made would not survive the training.
    """
    return _in_bits(recipe, space, 32, space.defaults.precision)


def in_formats(recipe: Recipe, space: SearchSpace) -> list[Recipe]:
    """Return the structure in every number format that may be fastest on the device; trained weights are kept."""
    known: list[Format] = likely_winners(formats(space))
    found = [_in_bits(recipe, space, entry.bits, entry.precision) for entry in known]
    return [entry.model_copy(update={"weights": recipe.weights}) for entry in found]


def spread(shapes: Sequence[Shape], targets: Sequence[float]) -> list[Shape]:
    """Choose a shape near each target, none twice; where several are near, those of the search come first."""
    left, chosen = list(shapes), list[Shape]()
    for target in targets:
        if not left:
            break
        best = min(left, key=lambda shape: (_steps_from(shape.ratio, target), _RANK.get(shape.origin, len(_RANK))))
        left.remove(best)
        chosen.append(best)
    return sorted(chosen, key=lambda shape: -shape.ratio)


def _healable(trial: TrialRecord) -> bool:
    return trial.outcome == "done" and trial.drop is not None and trial.drop <= LARGEST_DROP


def _steps_from(ratio: float, target: float) -> int:
    return int(abs(log(ratio / target)) / NEAR)


def _candidates(
    request: JobRequest,
    prepared: Prepared,
    space: SearchSpace,
    study: StudyState,
    model: LatencyModel,
    targets: Sequence[float],
) -> Iterator[Shape]:
    """Yield shapes, those with the best claim first."""
    if prepared.options is not None and request.strategy == "guided":
        from search.strategies.guided import GuidedStrategy  # loads Optuna

        for entry in prepared.explored:
            yield _shape(entry.recipe, "explored", space, model)
        for recipe in GuidedStrategy(request, prepared, space).solve(study, targets):
            yield _shape(recipe, "solver", space, model)
    for trial in study.trials:
        if trial.recipe is not None and trial.recipe.weights is None and _healable(trial):
            yield _shape(trial.recipe, "trial", space, model, trial.number)
    if {"heads", "ffn"} & set(space.kinds):
        for fraction in UNIFORM:
            narrow = uniform(space, request.space, fraction, 32, space.defaults.precision)
            yield _shape(narrow, NARROWED, space, model)
            if "depth" in space.kinds:
                for shallow in _shallower(narrow, request.space.min_layers):
                    yield _shape(shallow, "depth", space, model)


def _shape(recipe: Recipe, origin: str, space: SearchSpace, model: LatencyModel, number: int | None = None) -> Shape:
    plain = structure(recipe, space)
    ratio = min(model.predict(variant).value for variant in in_formats(plain, space))
    return Shape(recipe=plain, ratio=ratio, origin=origin, number=number)


def _shallower(recipe: Recipe, least: int) -> Iterator[Recipe]:
    """Yield the recipe with fewer layers, evenly spaced, the first and the last among them.

    None of a model with so few layers that all of them stay.
    """
    layers = len(recipe.layers)
    for part in LAYERS_KEPT:
        keep = max(least, 2, round(part * layers))
        if keep < layers:
            kept = {round(place * (layers - 1) / (keep - 1)) for place in range(keep)}
            changed = (
                layer if number in kept else LayerRecipe(removed=True) for number, layer in enumerate(recipe.layers)
            )
            yield recipe.model_copy(update={"layers": tuple(changed)})


def _in_bits(recipe: Recipe, space: SearchSpace, bits: int, precision: str) -> Recipe:
    changes = {
        "layers": tuple(layer.with_branches(bits=bits, sparsity=0.0) for layer in recipe.layers),
        "precision": precision,
        "weights": None,
        "quantization": space.defaults.quantization,
    }
    return space.canonical(recipe.model_copy(update=changes))
