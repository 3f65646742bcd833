"""Names in pictures: they cover neither each other nor a mark."""

from itertools import combinations
from random import Random

import pytest
from matplotlib.textpath import TextPath

from api.reports.axes import Axis
from api.reports.chart import Chart
from api.reports.chart import Mark
from api.reports.labels import Box
from api.reports.labels import Canvas
from api.reports.labels import Label
from api.reports.labels import place_labels
from api.reports.page import CANVAS
from api.reports.page import labels_of
from profilers.types import Estimate
from search.objectives import WORDINGS

PNG = Canvas(width=607, height=325, font_size=8, front=4, baseline=4, tried=2, best=7.5)
NAMES = ("fp32", "int8_one_liner", "int8_static")


def mark(kind: str, number: int, name: str, speedup: float, expected: float, seen: float = 0.0) -> Mark:
    """A mark with bars of 2 % and of one point and a half."""
    return Mark(
        kind,  # type: ignore[arg-type]
        number,
        name,
        Estimate(value=speedup, low=0.98 * speedup, high=1.02 * speedup),
        Estimate(value=seen, low=seen - 1.5, high=seen + 1.5),
        expected,
        best=number == 13,
    )


def chart(front: list[Mark], baselines: list[Mark], tried: list[Mark], most_drop: float | None = 1.0) -> Chart:
    shown = [*front, *baselines]
    speedup = Axis.over(value for shown_mark in shown for value in (shown_mark.speedup.low, shown_mark.speedup.high))
    drop = Axis.over([value for item in shown for value in (item.drop.low, item.drop.high, item.expected, 1.0)])
    objective = WORDINGS["p50"]
    return Chart(objective, tuple(front), tuple(baselines), tuple(tried), 0, speedup, drop, most_drop)


def crowded(seed: int) -> Chart:
    """Three baselines within a tenth of each other, six models of the front, twenty others."""
    random = Random(seed)
    baselines = [
        mark("baseline", number, name, 1.5 + random.uniform(0, 0.1), random.uniform(0, 0.3))
        for number, name in enumerate(NAMES)
    ]
    front = [
        mark("front", 10 + index, "m", 2 + random.uniform(0, 7), random.uniform(0, 1), random.uniform(-2, 1))
        for index in range(6)
    ]
    tried = [mark("tried", 20 + index, "m", random.uniform(2, 9), random.uniform(0, 1.5)) for index in range(20)]
    return chart(front, baselines, tried)


def room_of(picture: Chart, canvas: Canvas, shown: Mark) -> Box:
    x = canvas.width * picture.speedup.share(shown.speedup.value)
    y = canvas.height * picture.drop.share(shown.expected)
    return Box.around(x, y, canvas.radius(shown))


def assert_readable(picture: Chart, canvas: Canvas, labels: dict[int, Label]) -> None:
    for first, second in combinations(labels.values(), 2):
        assert first.box.overlap(second.box) == 0, (first.text, second.text)
    plot = Box(0, 0, canvas.width, canvas.height)
    for label in labels.values():
        assert label.box.overlap(plot) == pytest.approx(label.box.area), label.text
        for shown in (*picture.front, *picture.baselines):
            assert label.box.overlap(room_of(picture, canvas, shown)) == 0, (label.text, shown)


@pytest.mark.parametrize("seed", range(8))
def test_names_of_close_models_cover_neither_each_other_nor_a_mark(seed: int) -> None:
    picture = crowded(seed)
    numbers = [(shown, str(shown.number)) for shown in picture.front]
    names = [(shown, shown.name) for shown in picture.baselines]
    assert_readable(picture, PNG, place_labels(picture, PNG, numbers + names))
    goal, labels = labels_of(picture)
    assert goal is not None
    assert_readable(picture, CANVAS, labels | {-1: goal})


def test_the_first_free_place_is_taken() -> None:
    dot = mark("baseline", 0, "fp32", 1.0, 0.0, seen=5.0)
    far = mark("baseline", 1, "int8", 3.0, 3.0, seen=3.0)
    labels = place_labels(chart([], [dot, far], [], None), PNG, [(dot, "fp32"), (far, "int8")])
    assert (labels[0].dx, labels[0].anchor, labels[0].leader) == (0, "middle", None)
    assert labels[0].dy > PNG.baseline  # below: its bar begins far from it
    assert labels[1].anchor != "middle"  # the bar goes through the mark
    assert labels[1].leader is None


def test_a_line_leads_to_a_name_that_is_away_from_its_mark() -> None:
    row = [mark("baseline", number, "a_long_name", 1.0 + 0.003 * number, 0.0) for number in range(8)]
    picture = chart([], row, [])
    labels = place_labels(picture, PNG, [(shown, shown.name) for shown in row])
    assert_readable(picture, PNG, labels)
    led = [(number, label) for number, label in labels.items() if label.leader]
    assert led
    for number, label in led:
        assert label.leader is not None
        own = room_of(picture, PNG, row[number])
        x, y = own.left + PNG.baseline + label.leader[0], own.top + PNG.baseline + label.leader[1]
        assert label.box.grown(1e-6).overlap(Box.around(x, y, 1e-6)) > 0
        assert own.overlap(Box.around(x, y, 1e-6)) == 0


@pytest.mark.parametrize(
    ("start", "end", "length"),
    [
        ((-5, 5), (15, 5), 10),
        ((5, 5), (5, 9), 4),
        ((0, 0), (10, 10), 200**0.5),
        ((-5, -5), (-5, 20), 0),
        ((11, 0), (11, 9), 0),
        ((-1, 11), (5, 12), 0),
    ],
)
def test_what_of_a_line_lies_in_a_box(start: tuple[float, float], end: tuple[float, float], length: float) -> None:
    assert Box(0, 0, 10, 10).crossed_by(start, end) == pytest.approx(length)
    assert Box(0, 0, 10, 10).crossed_by(end, start) == pytest.approx(length)


@pytest.mark.parametrize("name", [*NAMES, "openvino_int8", "torch_bf16"])
def test_the_room_of_a_text_is_about_that_of_the_letters(name: str) -> None:
    drawn = TextPath((0, 0), name, size=8).get_extents().width
    box = Box.of_text(0, 0, "start", name, 8)
    assert 0.75 < drawn / (box.right - box.left) < 1.1
