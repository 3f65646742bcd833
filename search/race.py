"""The race of the shapes in recovery training, replayed from what has happened: pure decisions, no rows.

A few shapes that are spread over latency train a little: the scouts. What they promise tells what shapes between and
beside them would come to. Then, training after training, the shape with the largest expected gain has half of the time
that is left; it goes on from its own weights if it has some. So a first model far within the allowed drop is followed
by a more aggressive one, a failure by a milder one, and most of the time goes to the few that may win. The same
outcomes give the same next training.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Outcome:
    """What one training has brought.

    Attributes:
        failed: It could not be done; the shape is out.
        weights: sha256 of the trained weights; ``None``: the training was in vain, the shape stays as it was. It does
            not train again, but what it loses untrained says what others may hope for.
        drop: Loss of quality on the search split in the best number format; ``None``: it could not be evaluated.
        drop_error: Standard error of ``drop``.
        curve: ``(seconds, score)`` on texts that were not trained on; scores are at most zero, which is a perfect copy.
    """

    failed: bool
    weights: str | None = None
    drop: float | None = None
    drop_error: float = 0.0
    curve: tuple[tuple[float, float], ...] = ()

    @property
    def seconds(self) -> float:
        """Its training time."""
        return self.curve[-1][0] if self.curve else 0.0


Place = tuple[int, int]
"""Number of a training in the job, from 0, and of the shape."""


@dataclass(frozen=True)
class Lane:
    """What is known for the race about one shape.

    Attributes:
        cost: Predicted latency ratio.
        origin: Shapes of one origin are alike: an untried one is judged by those.
    """

    cost: float
    origin: str = ""


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
    """What the trainings of one shape have brought together."""

    weights: str | None
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
    return sorted(order[:count], key=lambda number: -lanes[number].cost)


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
    return sorted(chosen, key=lambda number: -lanes[number].cost)


def next_training(
    lanes: Sequence[Lane],
    outcomes: Mapping[Place, Outcome],
    seconds: float,
    left: float,
    goal: Goal,
    *,
    most: int = 0,
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
    states = {shape: state for shape in sorted(tried) if (state := _state(_of(outcomes, shape), left)) is not None}
    waiting = [number for number in range(len(lanes)) if number not in tried]
    if not states and not waiting:
        return None
    # Where nothing is known yet, because every training so far was in vain, the mildest of the others comes next.
    chosen = _choose(lanes, states, out, goal) if states else max(waiting, key=lambda number: lanes[number].cost)
    if chosen is None:
        return None
    half = left / 2
    last = half < max(LEAST_TURN_SECONDS, LEAST_TURN * seconds)
    weights = states[chosen].weights if chosen in states else None
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


def _choose(lanes: Sequence[Lane], states: Mapping[int, _State], out: set[int], goal: Goal) -> int | None:
    if goal.max_drop is None:
        begun = states.keys() - out
        if begun:
            return max(sorted(begun), key=lambda shape: (states[shape].later.value, -lanes[shape].cost))
        waiting = [number for number in range(len(lanes)) if number not in out]
        return max(waiting, key=lambda number: untried(lanes[number], lanes, states).value)
    limit = -goal.max_drop
    bag = [shape for shape, state in states.items() if chance(state.now, limit) >= SAFE]
    held = min((lanes[shape].cost for shape in bag), default=max(lane.cost for lane in lanes) / 0.9)
    chances = {number: _promise(number, lanes, states, limit) for number in range(len(lanes)) if number not in out}
    gains = {
        number: promise * log(held / lanes[number].cost)
        for number, promise in chances.items()
        if lanes[number].cost < held
    }
    best = max(gains, key=lambda number: (gains[number], -number), default=None)
    if best is not None and gains[best] >= LEAST_GAIN:
        return best
    if trainable := [shape for shape in bag if shape not in out]:
        return min(trainable, key=lambda shape: lanes[shape].cost)
    if bag:  # what is held did not train: nothing slower is worth a training, what is faster may be
        return best
    return max(chances, key=lambda number: (chances[number], lanes[number].cost))


def _promise(number: int, lanes: Sequence[Lane], states: Mapping[int, _State], limit: float) -> float:
    """Return the probability that a shape will reach the limit; no greater than that of a slower one of its family."""
    if number in states:
        return chance(states[number].later, limit)
    lane = lanes[number]
    slower = [
        chance(state.later, limit)
        for shape, state in states.items()
        if lanes[shape].origin == lane.origin and lanes[shape].cost > lane.cost
    ]
    return min([chance(untried(lane, lanes, states), limit), *slower])


def untried(lane: Lane, lanes: Sequence[Lane], states: Mapping[int, _State]) -> Estimate:
    """Return what a shape would come to that has not trained, in the time that is left.

    Its drop lies between those of its neighbours, had these only begun now.

    The logarithm of the drop is taken to be linear in the logarithm of time; beyond the outermost shapes with the slope
    of the outermost two, but at least in proportion to the speed, and to its square where only one is known.
    """
    family = {shape: state for shape, state in states.items() if lanes[shape].origin == lane.origin}
    known = family or dict(states)
    points = sorted(
        (log(lanes[shape].cost), log(max(-state.fresh.value, SMALLEST_DROP))) for shape, state in known.items()
    )
    where = log(lane.cost)
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


def expectation(outcome: Outcome, seconds: float) -> Estimate:
    """Return minus the drop that is expected after ``seconds`` of training, with a 90 % range.

    The drop is expected to shrink as the distance from the dense model does, whose curve is known much better.
    """
    if outcome.drop is None:
        return Estimate(-inf, -inf, inf)
    margin = 1.645 * outcome.drop_error
    points = [CurveSample(*point) for point in outcome.curve]
    now = max((point.score for point in points), default=0.0)
    if outcome.drop <= 0 or now >= 0:
        return Estimate(-outcome.drop, -outcome.drop - margin, -outcome.drop + margin)
    later = extrapolate(points, max(seconds, points[-1].seconds), ceiling=0.0)
    value, low, high = (-outcome.drop * score / now for score in (later.value, later.low, later.high))
    return Estimate(value, min(low, value) - margin, max(high, value) + margin)


def _of(outcomes: Mapping[Place, Outcome], shape: int) -> list[Outcome]:
    return [outcomes[place] for place in sorted(outcomes) if place[1] == shape]


def _state(history: Sequence[Outcome], left: float) -> _State | None:
    """Join the trainings of one shape into one curve."""
    last = history[-1]
    if last.failed or last.drop is None:
        return None
    seconds, curve = 0.0, list[tuple[float, float]]()
    for outcome in history:
        for moment, score in outcome.curve:
            if not curve or seconds + moment > curve[-1][0]:
                curve.append((seconds + moment, score))
        seconds += outcome.seconds
    joined = Outcome(False, last.weights, last.drop, last.drop_error, tuple(curve))
    now, later, fresh = (expectation(joined, moment) for moment in (seconds, seconds + left, left))
    return _State(last.weights, now, later, fresh)


def _by_origin(lanes: Sequence[Lane]) -> list[list[int]]:
    """Return the shapes of each origin, the slowest first; those that the search has found come first."""
    families: dict[str, list[int]] = {SEARCHED: []}
    for number in sorted(range(len(lanes)), key=lambda number: -lanes[number].cost):
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
