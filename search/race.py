"""The race of the shapes in recovery training, replayed from what has happened: pure decisions, no rows.

A few shapes that are spread over latency train a little: the scouts. What they promise tells what shapes between and
beside them would come to. Then, training after training, the shape with the largest expected gain has half of the time
that is left; it goes on from its own weights if it has some. So a first model far within the allowed drop is followed
by a more aggressive one, a failure by a milder one, and most of the time goes to the few that may win. The same
outcomes give the same next training.

A model has one time and one drop in each number format. They are never mixed: what counts of a shape is the format with
which it promises most, and an untried shape is judged in each format by what the tried ones came to in that format.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from math import erfc
from math import exp
from math import inf
from math import log
from math import sqrt

from compressors.recovery.learning_curve import CurveSample
from compressors.recovery.learning_curve import Estimate
from compressors.recovery.learning_curve import extrapolate
from search.requests import Goal

SEARCHED = "search"
"""Origin of shapes that were solved for this model on this device, in place of narrowing all layers alike."""
SHORTEST_SECONDS = 60.0
"""Least useful training time, where the budget has as much: shorter ones have hardly made up for their own warm-up, and
a short budget is better spent on one or two shapes than on a look at many."""
SCOUTS = 4
"""Shapes that train a little at the beginning."""
SCOUT_SHARE = 0.3
"""Part of the training time that the scouts take together."""
LEAST_TURN = 0.15
"""Part of the training time that a later training has at least ..."""
LEAST_TURN_SECONDS = 120.0
"""... and seconds: each begins with large steps, which cost what the one before had won, so one long training brings
more than two short ones, of the same shape or of two."""
SAFE = 0.6
"""A model that meets the goal with this probability is in the bag: others have to be faster."""
LEAST_GAIN = 0.005
"""Expected gain, in logarithm of time, below which the best model is trained on instead."""
UNTRIED_FAMILY = 1.25
"""Drop of an untried shape of an untried origin against what the tried ones say: they come first for a reason."""
UNTRIED_SPREAD = 0.35
"""Standard deviation of the logarithm of an untried shape's drop around what its neighbours say."""
SMALLEST_DROP = 1e-4
RATE = 0.25
"""How the distance from the dense model shrinks with training time: with this power of it at most. A training's own
curve falls faster, because its steps get smaller towards its end, but a longer training has the same large steps
first."""
LARGEST_RATE = 0.5
"""The same for the lucky end of the range."""


Curve = tuple[tuple[float, float], ...]
"""``(seconds, score)`` on texts that were not trained on; scores are at most zero, which is a perfect copy."""


@dataclass(frozen=True)
class Judged:
    """What a model has come to in one number format.

    Attributes:
        drop: Loss of quality on the search split.
        error: Standard error of ``drop``.
        ratio: Measured latency ratio; ``None`` of a model that was not worth measuring.
    """

    drop: float
    error: float
    ratio: float | None = None


@dataclass(frozen=True)
class Outcome:
    """What one training has brought.

    Attributes:
        failed: It could not be done, or not be evaluated; the shape is out.
        weights: sha256 of the trained weights; ``None``: the training was in vain, the shape stays as it was. It does
            not train again, but what it loses untrained says what others may hope for.
        formats: What came of it, by the number of the format; formats in which it was not evaluated are missing.
        curve: Of the training.
    """

    failed: bool
    weights: str | None = None
    formats: Mapping[int, Judged] = field(default_factory=dict)
    curve: Curve = ()

    @property
    def seconds(self) -> float:
        """Its training time."""
        return self.curve[-1][0] if self.curve else 0.0


Place = tuple[int, int]
"""Number of a training in the job, from 0, and of the shape."""

Variant = tuple[int, int]
"""Number of a shape, and of the number format that it is looked at in."""


@dataclass(frozen=True)
class Lane:
    """What is known for the race about one shape.

    Attributes:
        costs: Latency ratio in each number format: measured of what was tried, else predicted.
        origin: Shapes of one origin are alike: an untried one is judged by those.
        planned: Latency ratio as predicted before the first training. It says which shapes are spread evenly, so that
            what is measured meanwhile does not add others to those that were to train.
    """

    costs: tuple[float, ...]
    origin: str
    planned: float

    @property
    def cost(self) -> float:
        """Latency ratio in the fastest format."""
        return min(self.costs)


@dataclass(frozen=True)
class Training:
    """What is to be done next.

    Attributes:
        place: Number of the training, and the shape.
        weights: Trained weights to go on from.
        seconds: Planned training time.
        last: It may have all the time that is left.
        parent: Shape, and its trained weights, that this one is cut from in place of the dense model.
    """

    place: Place
    weights: str | None
    seconds: float
    last: bool
    parent: tuple[int, str] | None = None


@dataclass(frozen=True)
class _State:
    """What the trainings of one shape have brought together, in one number format."""

    now: Estimate
    """Minus the drop, with a 90 % range."""
    later: Estimate
    """The same, after the time that is left."""
    fresh: Estimate
    """The same, if it had only the time that is left: what a shape may hope for that begins now."""


def scouts(lanes: Sequence[Lane], seconds: float) -> list[int]:
    """Return the shapes that train first: spread over every origin, not the most extreme ones; the mildest first.

    Where there is time for one only, it is one that the search has found: its start is the best for its speed.
    """
    shortest = min(SHORTEST_SECONDS, SCOUT_SHARE * seconds)
    count = max(1, min(SCOUTS, len(lanes), int(SCOUT_SHARE * seconds / shortest)))
    queues = [_inner_first(numbers) for numbers in _by_origin(lanes)]
    order = [queue[turn] for turn in range(len(lanes)) for queue in queues if turn < len(queue)]
    return sorted(order[:count], key=lambda number: -lanes[number].planned)


def evenly_spread(lanes: Sequence[Lane], count: int) -> list[int]:
    """Return ``count`` of the shapes, an equal number of every origin where there are so many, the mildest first.

    Those of an origin are evenly spaced from the slowest to the fastest.
    """
    families = _by_origin(lanes)
    places = [0] * len(families)
    while sum(places) < min(count, len(lanes)):
        open_ones = [number for number, family in enumerate(families) if places[number] < len(family)]
        places[min(open_ones, key=lambda number: places[number])] += 1
    chosen = [
        family[int((place + 0.5) * len(family) / many)]
        for family, many in zip(families, places, strict=True)
        for place in range(many)
    ]
    return sorted(chosen, key=lambda number: -lanes[number].planned)


def next_training(
    lanes: Sequence[Lane],
    outcomes: Mapping[Place, Outcome],
    seconds: float,
    left: float,
    goal: Goal,
    *,
    most: int = 0,
    ceiling: float | None = None,
) -> Training | None:
    """Return the next training, or ``None`` when the race is over.

    Args:
        lanes: The shapes.
        outcomes: Of the trainings so far.
        seconds: Training time in all.
        left: Training time that is left.
        goal: With a maximum drop, a gain is a faster shape that keeps to it; with a latency ceiling, a better shape.
            Without a goal every speed is wanted: as many shapes as there is time for, spread over speed and origin,
            get the same time.
        most: Shapes that there is time for without a goal; 0: as many as get :data:`SHORTEST_SECONDS`.
        ceiling: The goal's latency ceiling as a ratio.
    """
    turn = len(outcomes)
    out = {shape for (_, shape), outcome in outcomes.items() if outcome.weights is None}
    if len(out) == len(lanes) or left <= 0:
        return None
    tried = {shape for _, shape in outcomes}
    if goal.is_open:
        count = max(1, min(len(lanes), most or int(seconds / min(SHORTEST_SECONDS, seconds))))
        waiting = [number for number in evenly_spread(lanes, count) if number not in tried]
        if not waiting:
            return None
        return Training((turn, waiting[0]), None, seconds / count, last=len(waiting) == 1)
    first = [number for number in scouts(lanes, seconds) if number not in tried]
    if first:
        share = SCOUT_SHARE * seconds / (len(first) + len(tried))
        return Training((turn, first[0]), None, share, last=len(lanes) == 1)
    states = {
        (shape, number): state
        for shape in sorted(tried)
        for number, state in _states(_of(outcomes, shape), left).items()
    }
    waiting = [number for number in range(len(lanes)) if number not in tried]
    if not states and not waiting:
        return None
    # Where nothing is known yet, because every training so far was in vain, the mildest of the others comes next.
    chosen = max(waiting, key=lambda number: lanes[number].cost, default=None)
    if states:
        chosen = _choose(lanes, states, _variants(lanes, states, out, tried), goal, ceiling)
    if chosen is None:
        return None
    half = left / 2
    last = half < max(LEAST_TURN_SECONDS, LEAST_TURN * seconds)
    weights = _of(outcomes, chosen)[-1].weights if chosen in tried else None
    return Training((turn, chosen), weights, left if last else half, last)


def next_gradual(count: int, outcomes: Mapping[Place, Outcome], left: float) -> Training | None:
    """Return the next training of a family in which each member is cut from the healed one before.

    Args:
        count: Members, the mildest first.
        outcomes: Of the trainings so far.
        left: Training time that is left; the members that are to come get equal parts of it.
    """
    turn = len(outcomes)
    if turn >= count or left <= 0:
        return None
    healed = [(place[1], outcomes[place].weights) for place in sorted(outcomes) if not outcomes[place].failed]
    parent = next(((shape, weights) for shape, weights in reversed(healed) if weights is not None), None)
    return Training((turn, turn), None, left / (count - turn), last=turn == count - 1, parent=parent)


def _variants(lanes: Sequence[Lane], states: Mapping[Variant, _State], out: set[int], tried: set[int]) -> list[Variant]:
    """Return what may train next: in every number format what has not been tried, of the others what was evaluated."""
    everything = [(shape, number) for shape, lane in enumerate(lanes) for number in range(len(lane.costs))]
    return [
        variant for variant in everything if variant[0] not in out and (variant[0] not in tried or variant in states)
    ]


def _choose(
    lanes: Sequence[Lane],
    states: Mapping[Variant, _State],
    variants: Sequence[Variant],
    goal: Goal,
    ceiling: float | None,
) -> int | None:
    """Return the shape that promises most, be it in whatever number format."""
    if not variants:
        return None
    if goal.max_drop is None:
        return _best_below(lanes, states, variants, ceiling)
    limit = -goal.max_drop
    known = max(lane.cost for lane in lanes) / 0.9  # about what the search has: slower formats are no gain
    costs = {variant: cost for variant in {*states, *variants} if (cost := _cost(lanes, variant)) < known}
    now = {variant: chance(states[variant].now, limit) for variant in costs if variant in states}
    promises = {variant: _promise(variant, lanes, states, limit) for variant in variants}
    before = _worth(now, costs, known)
    gains = {
        shape: _worth(now | _trained(shape, promises, now, costs), costs, known) - before
        for shape in sorted({shape for shape, _ in variants})
    }
    best = max(gains, key=lambda shape: gains[shape])
    if gains[best] >= LEAST_GAIN:
        return best
    bag = [variant for variant, probability in now.items() if probability >= SAFE]
    if trainable := [variant for variant in bag if variant in promises]:
        return min(trainable, key=lambda variant: costs[variant])[0]
    if bag:  # what is held did not train: nothing slower is worth a training, what is faster may be
        held = min(costs[variant] for variant in bag)
        return best if any(costs.get((best, number), held) < held for number in range(len(lanes[best].costs))) else None
    return max(promises, key=lambda variant: (promises[variant], _cost(lanes, variant)))[0]


def _worth(chances: Mapping[Variant, float], costs: Mapping[Variant, float], known: float) -> float:
    """Return the expected gain in speed, in logarithm of time, of the fastest model that will keep to the goal.

    A model that is probably good enough is worth only so much: one that makes sure of it may be worth more than one
    that might be faster still. Models are judged on the same examples and fail on them together, so a slower one is of
    use only as far as it is likelier to keep to the goal.
    """
    worth, covered = 0.0, 0.0
    for variant in sorted(chances, key=lambda variant: costs[variant]):
        worth += max(0.0, chances[variant] - covered) * log(known / costs[variant])
        covered = max(covered, chances[variant])
    return worth


def _trained(
    shape: int, promises: Mapping[Variant, float], now: Mapping[Variant, float], costs: Mapping[Variant, float]
) -> dict[Variant, float]:
    """Return the chances of a shape's number formats after a training, which keeps what was better before."""
    return {
        variant: max(promise, now.get(variant, 0.0))
        for variant, promise in promises.items()
        if variant[0] == shape and variant in costs
    }


def _best_below(
    lanes: Sequence[Lane], states: Mapping[Variant, _State], variants: Sequence[Variant], ceiling: float | None
) -> int:
    """Return the shape of the best expected quality among those that are fast enough; else the fastest."""
    fast = [variant for variant in variants if ceiling is None or _cost(lanes, variant) <= ceiling]
    if not fast:
        return min(variants, key=lambda variant: _cost(lanes, variant))[0]
    begun = [variant for variant in fast if variant in states]
    if begun:
        return max(begun, key=lambda variant: (states[variant].later.value, -_cost(lanes, variant)))[0]
    return max(fast, key=lambda variant: _untried(variant, lanes, states).value)[0]


def _cost(lanes: Sequence[Lane], variant: Variant) -> float:
    shape, number = variant
    return lanes[shape].costs[number]


def _promise(variant: Variant, lanes: Sequence[Lane], states: Mapping[Variant, _State], limit: float) -> float:
    """Return the probability that a shape will reach the limit in a number format.

    It is no greater than that of a slower shape of its family.
    """
    if variant in states:
        return chance(states[variant].later, limit)
    cost = _cost(lanes, variant)
    slower = [
        chance(state.later, limit)
        for other, state in states.items()
        if _are_alike(other, variant, lanes) and _cost(lanes, other) > cost
    ]
    return min([chance(_untried(variant, lanes, states), limit), *slower])


def _are_alike(one: Variant, other: Variant, lanes: Sequence[Lane]) -> bool:
    """Whether two shapes have the same origin, and are looked at in the same number format."""
    return one[1] == other[1] and lanes[one[0]].origin == lanes[other[0]].origin


def _untried(variant: Variant, lanes: Sequence[Lane], states: Mapping[Variant, _State]) -> Estimate:
    """Return what a shape would come to in a number format that has not trained, in the time that is left.

    Its drop lies between those of its neighbours in that format, had these only begun now.

    The logarithm of the drop is taken to be linear in the logarithm of time; beyond the outermost shapes with the slope
    of the outermost two, but at least in proportion to the speed, and to its square where only one is known.
    """
    family = {other: state for other, state in states.items() if _are_alike(other, variant, lanes)}
    known = family or {other: state for other, state in states.items() if other[1] == variant[1]} or dict(states)
    points = sorted(
        (log(_cost(lanes, other)), log(max(-state.fresh.value, SMALLEST_DROP))) for other, state in known.items()
    )
    where = log(_cost(lanes, variant))
    slope = -2.0
    near = min(points, key=lambda point: abs(point[0] - where))
    if len(points) > 1:
        right = next((index for index, point in enumerate(points) if point[0] >= where), len(points) - 1)
        low, high = points[max(0, right - 1)], points[max(1, right)]
        if high[0] > low[0]:
            outside = not points[0][0] <= where <= points[-1][0]
            slope = min(-1.0 if outside else 0.0, (high[1] - low[1]) / (high[0] - low[0]))
    middle = near[1] + slope * (where - near[0]) + (0.0 if family else log(UNTRIED_FAMILY))
    spread = 1.645 * (UNTRIED_SPREAD + 0.5 * abs(where - near[0]))
    return Estimate(-exp(middle), -exp(middle + spread), -exp(middle - spread))


def chance(estimate: Estimate, limit: float) -> float:
    """Return the probability that a score is at least ``limit``: a normal distribution over the range below it."""
    width = estimate.value - estimate.low if estimate.value >= limit else estimate.high - estimate.value
    if width <= 0 or width == inf:
        return float(estimate.value >= limit)
    return 0.5 * erfc((limit - estimate.value) / (width / 1.645) / sqrt(2))


def _expectation(judged: Judged, curve: Curve, seconds: float) -> Estimate:
    """Return minus the drop that is expected after ``seconds`` of training, with a 90 % range.

    The drop is expected to shrink as the distance from the dense model does, whose curve is known much better.
    """
    margin = 1.645 * judged.error
    points = [CurveSample(*point) for point in curve]
    now = max((point.score for point in points), default=0.0)
    if judged.drop <= 0 or now >= 0:
        return Estimate(-judged.drop, -judged.drop - margin, -judged.drop + margin)
    longer = max(1.0, seconds / points[-1].seconds)
    later = extrapolate(points, longer * points[-1].seconds, ceiling=0.0)
    value = -judged.drop * max(later.value / now, longer**-RATE)
    low, high = -judged.drop * later.low / now, -judged.drop * max(later.high / now, longer**-LARGEST_RATE)
    return Estimate(value, min(low, value) - margin, max(high, value) + margin)


def _of(outcomes: Mapping[Place, Outcome], shape: int) -> list[Outcome]:
    return [outcomes[place] for place in sorted(outcomes) if place[1] == shape]


def _states(history: Sequence[Outcome], left: float) -> dict[int, _State]:
    """Join the trainings of one shape into one curve; return what they have brought in each number format."""
    last = history[-1]
    if last.failed:
        return {}
    seconds, joined = 0.0, list[tuple[float, float]]()
    for outcome in history:
        for moment, score in outcome.curve:
            if not joined or seconds + moment > joined[-1][0]:
                joined.append((seconds + moment, score))
        seconds += outcome.seconds
    curve, moments = tuple(joined), (seconds, seconds + left, left)
    return {
        number: _State(*(_expectation(judged, curve, moment) for moment in moments))
        for number, judged in last.formats.items()
    }


def _by_origin(lanes: Sequence[Lane]) -> list[list[int]]:
    """Return the shapes of each origin, the slowest first; those that the search has found come first."""
    families: dict[str, list[int]] = {SEARCHED: []}
    for number in sorted(range(len(lanes)), key=lambda number: -lanes[number].planned):
        families.setdefault(lanes[number].origin, []).append(number)
    return [family for family in families.values() if family]


def _inner_first(numbers: Sequence[int]) -> list[int]:
    """One and two thirds of the way first, then the others."""
    last = len(numbers) - 1
    order: list[int] = []
    for part in (1 / 3, 2 / 3):
        place = numbers[round(part * last)]
        if place not in order:
            order.append(place)
    return order + [number for number in numbers if number not in order]
