"""Where the names in a picture of a front go: beside their marks, and upon nothing else.

All lengths are in one unit of the picture: points, or units of an SVG. The origin is the upper left corner of the plot,
and the vertical axis runs downwards.
"""

from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import hypot
from operator import itemgetter
from typing import Literal

from api.reports.chart import Chart
from api.reports.chart import Mark

Anchor = Literal["start", "middle", "end"]
Place = tuple[float, float]

_CHARACTER = 0.58
"""Mean width of a character, as a share of the size of the font; so are all lengths below."""
_LINE = 1.25
_BASELINE = 0.35
"""From the middle of a line of text down to where its letters stand."""
_GAP = 0.35
_MARGIN = 0.25
"""Between a name and lines that do not belong to it."""
_THICKNESS = 0.2
"""What crossing a line counts as, so that it can be held against covering an area."""
_STEPS = 8
"""Places along the line of the goal."""
_FARTHEST = 8
"""Lines of text between a mark and its name, at most."""


@dataclass(frozen=True)
class Box:
    """A rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def around(cls, x: float, y: float, radius: float) -> "Box":
        """Return the square around a round mark."""
        return cls(x - radius, y - radius, x + radius, y + radius)

    @classmethod
    def of_text(cls, x: float, y: float, anchor: Anchor, text: str, font_size: float) -> "Box":
        """Return about the room that a text takes whose letters stand at a height."""
        width = _CHARACTER * font_size * len(text)
        left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor] * width
        middle = y - _BASELINE * font_size
        return cls(left, middle - _LINE * font_size / 2, left + width, middle + _LINE * font_size / 2)

    def grown(self, margin: float) -> "Box":
        """Return the box with room around it."""
        return Box(self.left - margin, self.top - margin, self.right + margin, self.bottom + margin)

    @property
    def area(self) -> float:
        """Width times height."""
        return (self.right - self.left) * (self.bottom - self.top)

    def overlap(self, other: "Box") -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def nearest(self, x: float, y: float) -> Place:
        """Return the point of the box that is nearest to a point."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def crossed_by(self, start: Place, end: Place) -> float:
        """Return how much of a straight line lies inside (Liang and Barsky, 1984)."""
        first, last = 0.0, 1.0
        across, down = end[0] - start[0], end[1] - start[1]
        for low, high, begin, way in (
            (self.left, self.right, start[0], across),
            (self.top, self.bottom, start[1], down),
        ):
            if way == 0:
                if not low < begin < high:
                    return 0.0
                continue
            enter, leave = sorted(((low - begin) / way, (high - begin) / way))
            first, last = max(first, enter), min(last, leave)
        return max(0.0, last - first) * hypot(across, down)


@dataclass(frozen=True)
class Canvas:
    """Size of the plot, of the text, and of the marks from their middle to their edge."""

    width: float
    height: float
    font_size: float
    front: float
    baseline: float
    tried: float
    best: float

    def radius(self, mark: Mark) -> float:
        """Return how far a mark reaches from its middle."""
        sizes = {"front": self.front, "baseline": self.baseline, "tried": self.tried}
        return self.best if mark.best and mark.kind == "front" else sizes[mark.kind]


@dataclass(frozen=True)
class Label:
    """Where the name of a mark goes.

    Attributes:
        text: The name.
        dx: From the middle of the mark to the anchor of the text.
        dy: From the middle of the mark to where the letters stand.
        anchor: Which end of the text is at ``dx``.
        leader: From the middle of the mark to the end of a thin line that leads to the text; ``None`` for a text that
            is right beside its mark.
        box: About the room that the text takes.
    """

    text: str
    dx: float
    dy: float
    anchor: Anchor
    leader: Place | None
    box: Box


def place_labels(
    chart: Chart, canvas: Canvas, names: Sequence[tuple[Mark, str]], taken: Sequence[Box] = ()
) -> dict[int, Label]:
    """Return where the names of marks go, by number of the trial.

    From left to right, every name takes the nearest place in the plot where it meets no mark, bar, line or name before
    it; where there is none, the place where it covers least. The same is tried from right to left: the better one of
    both covers less, or has the shorter leaders.

    Args:
        chart: The picture.
        canvas: Its size.
        names: The marks that have a name, and the names.
        taken: Rooms that other texts take.
    """
    ordered = sorted(names, key=lambda pair: (pair[0].speedup.value, pair[0].number))
    attempts = [_placed_in_order(chart, canvas, order, taken) for order in (ordered, ordered[::-1])]
    return min(attempts, key=itemgetter(0))[1]


def place_goal(chart: Chart, canvas: Canvas, text: str) -> Label:
    """Return where the text about the goal goes along its line, ``dx`` and ``dy`` from the plot's corner.

    It is upon the line or under it, as far to the right as it covers nothing.
    """
    points, line = _Points(chart, canvas), _LINE * canvas.font_size
    height = points.at(chart.speedup.low, chart.most_drop or 0.0)[1]
    boxes, labels = list(points.rooms().values()), []
    for step in range(_STEPS):
        x = canvas.width * (1 - step / _STEPS) - _GAP * canvas.font_size
        for y in (height - _GAP * canvas.font_size, height + line):
            box = Box.of_text(x, y, "end", text, canvas.font_size)
            labels.append(Label(text, x, y, "end", None, box))
    cost = partial(_cost, place=(0.0, 0.0), boxes=boxes, lines=points.lines(), canvas=canvas)
    return _least(labels, cost)[1]


def _placed_in_order(
    chart: Chart, canvas: Canvas, names: Sequence[tuple[Mark, str]], taken: Sequence[Box]
) -> tuple[tuple[float, float], dict[int, Label]]:
    """Place one name after the other; return what they cover with the length of their leaders, and the places."""
    points = _Points(chart, canvas)
    rooms, lines = points.rooms(), points.lines()
    texts, placed, covered = list(taken), dict[int, Label](), 0.0
    for mark, text in names:
        place = points.of(mark)
        boxes = [*(room for number, room in rooms.items() if number != mark.number), *texts]
        labels = _candidates(place, canvas.radius(mark), text, canvas.font_size)
        cost, label = _least(labels, partial(_cost, place=place, boxes=boxes, lines=lines, canvas=canvas))
        covered += cost
        placed[mark.number] = label
        texts.append(label.box)
        if label.leader:
            lines.append((place, _moved(place, label.leader)))
    return (covered, sum(map(_leader_length, placed.values()))), placed


class _Points:
    """Where things of a chart are on its canvas."""

    def __init__(self, chart: Chart, canvas: Canvas) -> None:
        self._chart, self._canvas = chart, canvas

    def at(self, speedup: float, drop: float) -> Place:
        chart, canvas = self._chart, self._canvas
        across, down = chart.speedup.share(chart.speedup.clip(speedup)), chart.drop.share(chart.drop.clip(drop))
        return canvas.width * across, canvas.height * down

    def of(self, mark: Mark) -> Place:
        return self.at(mark.speedup.value, mark.expected)

    def rooms(self) -> dict[int, Box]:
        """Squares around all marks, by number of the trial."""
        marks = (*self._chart.front, *self._chart.baselines, *self._chart.tried)
        return {mark.number: Box.around(*self.of(mark), self._canvas.radius(mark)) for mark in marks}

    def lines(self) -> list[tuple[Place, Place]]:
        """Intervals, the staircase and the goal."""
        chart, found = self._chart, []
        for mark in (*chart.front, *chart.baselines):
            speedup, drop = mark.speedup, mark.drop
            found.append((self.at(speedup.value, drop.low), self.at(speedup.value, drop.high)))
            found.append((self.at(speedup.low, mark.expected), self.at(speedup.high, mark.expected)))
        found += [(self.at(*start), self.at(*end)) for start, end in pairwise(chart.staircase)]
        if chart.most_drop is not None:
            found.append((self.at(chart.speedup.low, chart.most_drop), self.at(chart.speedup.high, chart.most_drop)))
        return found


def _candidates(place: Place, radius: float, text: str, size: float) -> list[Label]:
    """Return places for a name, the best first: below, above, right, left, at the corners, and then the nearest."""
    gap, line = _GAP * size, _LINE * size
    beside, below = radius + gap, radius + gap / 2 + line / 2
    sides, ways = (1, -1), (1, -1)
    near: list[tuple[float, float, Anchor]] = [(0, below, "middle"), (0, -below, "middle")]
    near += [(side * beside, 0, _anchor(side)) for side in sides]
    near += [(side * gap, way * below, _anchor(side)) for way in ways for side in sides]
    far: list[tuple[float, float, Anchor]] = []
    for half_lines in range(1, 2 * _FARTHEST + 1):
        away = half_lines * line / 2
        far += [(0, way * (below + away), "middle") for way in ways]
        far += [(side * gap, way * (below + away), _anchor(side)) for way in ways for side in sides]
        downs = (0, below + away, -below - away)
        far += [
            (side * (beside + out * away), down, _anchor(side)) for out in (1, 2) for down in downs for side in sides
        ]
    beside_it = [_label(place, offset, text, size, led=False) for offset in near]
    led_to = [_label(place, offset, text, size, led=True) for offset in far]
    return beside_it + sorted(led_to, key=_leader_length)


def _label(place: Place, offset: tuple[float, float, Anchor], text: str, size: float, *, led: bool) -> Label:
    dx, middle, anchor = offset
    dy = middle + _BASELINE * size
    box = Box.of_text(place[0] + dx, place[1] + dy, anchor, text, size)
    end = box.nearest(*place)
    return Label(text, dx, dy, anchor, (end[0] - place[0], end[1] - place[1]) if led else None, box)


def _leader_length(label: Label) -> float:
    return hypot(*label.leader) if label.leader else 0.0


def _least(labels: Sequence[Label], cost: Callable[[Label], float]) -> tuple[float, Label]:
    """Return the first label that costs nothing, else the first of those that cost least, and what it costs."""
    tried: list[tuple[float, Label]] = []
    for label in labels:
        tried.append((cost(label), label))
        if tried[-1][0] == 0:
            return tried[-1]
    return min(tried, key=itemgetter(0))


def _anchor(side: int) -> Anchor:
    return "start" if side > 0 else "end"


def _moved(place: Place, offset: Place) -> Place:
    return place[0] + offset[0], place[1] + offset[1]


def _cost(
    label: Label, place: Place, boxes: Sequence[Box], lines: Sequence[tuple[Place, Place]], canvas: Canvas
) -> float:
    """Return what a label covers, as an area; 0 if it covers nothing and lies in the plot."""
    plot, room = Box(0.0, 0.0, canvas.width, canvas.height), label.box.grown(_MARGIN * canvas.font_size)
    covered = label.box.area - label.box.overlap(plot) + sum(label.box.overlap(box) for box in boxes)
    crossed = sum(room.crossed_by(*line) for line in lines)
    if label.leader:
        crossed += sum(box.crossed_by(place, _moved(place, label.leader)) for box in boxes)
    return round(covered + _THICKNESS * canvas.font_size * crossed, 6)
