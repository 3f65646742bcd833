"""Pictures as PNG. Matplotlib is loaded by the first picture, not with the service."""

from __future__ import annotations

import io
from threading import Lock
from typing import TYPE_CHECKING

from api.reports.chart import Chart
from api.reports.chart import Mark
from api.reports.heatmap import KINDS
from api.reports.heatmap import Row
from api.reports.labels import Canvas
from api.reports.labels import place_labels
from profilers.types import Estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACCENT = "#0f766e"
_BASELINE = "#b45309"
_QUIET = "#94a3b8"
_INK = "#0f172a"
_DARK = 0.9
"""Share removed from which on a cell is so dark that its text is white."""
_LONGEST_TITLE = 90
_MARK = 6.0
_RING = 13.0
_DOT = 4.0
"""Diameters in points."""
_FONT = 8.0
_ALIGNED = {"start": "left", "middle": "center", "end": "right"}
_POINTS_PER_INCH = 72
_DRAWING = Lock()
"""Matplotlib's caches of fonts and text are not made for several threads."""


def draw_front(chart: Chart, title: str) -> bytes:
    """Return a picture of a front with the baselines in it, as PNG."""
    with _DRAWING:
        figure, axes = _figure(9, 5.5, title)
        tried = chart.tried
        if tried:
            points = [mark.speedup.value for mark in tried], [mark.expected for mark in tried]
            axes.scatter(*points, s=_DOT**2, color=_QUIET, label=f"tried ({len(tried)})", zorder=2)
        if chart.most_drop is not None:
            axes.axhline(chart.most_drop, color=_INK, linestyle=":", linewidth=1, label="goal: largest loss")
        corners = chart.staircase
        axes.plot([x for x, _ in corners], [y for _, y in corners], color=_ACCENT, linewidth=1.2, zorder=3)
        _draw_marks(axes, chart.front, _ACCENT, "o", "front")
        _draw_marks(axes, chart.baselines, _BASELINE, "s", "baselines")
        for mark in chart.front:
            if mark.best:
                place = [mark.speedup.value], [mark.expected]
                axes.scatter(*place, s=_RING**2, facecolors="none", edgecolors=_ACCENT, linewidths=1.6, label="best")
        if not (chart.front or chart.baselines or tried):
            axes.text(0.5, 0.5, "Nothing has been measured yet.", transform=axes.transAxes, ha="center")
        axes.set_xlim(chart.speedup.low, chart.speedup.high)
        axes.set_ylim(chart.drop.high, chart.drop.low)  # better models are further up
        axes.set_xlabel(f"{chart.objective.axis}, measured on the device")
        axes.set_ylabel("loss of quality to be expected, points; bars: 95 % of what was seen", fontsize=9)
        axes.grid(alpha=0.25)
        handles, names = axes.get_legend_handles_labels()
        if handles:  # below the plot, where it hides nothing
            figure.legend(handles, names, loc="outside lower center", ncols=len(names), frameon=False, fontsize=_FONT)
        _write_names(figure, axes, chart)
        return _png(figure)


def draw_heatmap(rows: Sequence[Row], title: str) -> bytes:
    """Return a picture of what was removed from the layers of a model, as PNG."""
    with _DRAWING:
        figure, axes = _figure(9, 1.9 + 0.34 * len(rows), title)
        shares = [[cell.removed for cell in row.cells] for row in rows]
        image = axes.imshow(shares, cmap="GnBu", vmin=0, vmax=1.25, aspect="auto")
        for y, row in enumerate(rows):
            for x, cell in enumerate(row.cells):
                axes.text(
                    x,
                    y,
                    cell.text,
                    ha="center",
                    va="center",
                    fontsize=8,
                    color=_INK if cell.removed < _DARK else "white",
                )
        names = [f"{branch}\n{kind}" for branch, kinds in KINDS for kind in kinds]
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_yticks(range(len(rows)), [f"layer {row.name}" for row in rows], fontsize=8)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.axvline(len(KINDS[0][1]) - 0.5, color="white", linewidth=4)
        bar = figure.colorbar(image, ax=axes, pad=0.02, boundaries=[index / 50 for index in range(51)])
        bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
        bar.set_label("removed", fontsize=8)
        return _png(figure)


def _figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """Return a figure of its own; pyplot would keep it for the life of the process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    short = title if len(title) <= _LONGEST_TITLE else title[: _LONGEST_TITLE - 1] + "…"
    axes.set_title(short, fontsize=10, parse_math=False)  # names of users are no formulas
    return figure, axes


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def _draw_marks(axes: Axes, marks: Sequence[Mark], color: str, shape: str, label: str) -> None:
    if not marks:
        return
    x, y = [mark.speedup.value for mark in marks], [mark.expected for mark in marks]
    across = _bars([mark.speedup for mark in marks])
    axes.errorbar(
        x, y, xerr=across, fmt=shape, color=color, markersize=_MARK, capsize=2, linewidth=1, label=label, zorder=4
    )
    # A loss that was seen by luck may be far from the one to be expected: the bar need not begin at the mark.
    axes.vlines(x, [mark.drop.low for mark in marks], [mark.drop.high for mark in marks], color=color, linewidth=1)


def _write_names(figure: Figure, axes: Axes, chart: Chart) -> None:
    """Write the names of the baselines and the numbers of the front beside their marks."""
    from matplotlib.patheffects import withStroke

    figure.draw_without_rendering()  # lays out: the plot's size is known from here on
    room, scale = axes.get_window_extent(), _POINTS_PER_INCH / figure.dpi
    radius = _MARK / 2 + 1
    canvas = Canvas(
        float(room.width) * scale, float(room.height) * scale, _FONT, radius, radius, _DOT / 2, _RING / 2 + 1
    )
    names = [(mark, str(mark.number)) for mark in chart.front] + [(mark, mark.name) for mark in chart.baselines]
    labels = place_labels(chart, canvas, names)
    for mark, _ in names:
        label, color = labels[mark.number], _ACCENT if mark.kind == "front" else _BASELINE
        place = (mark.speedup.value, mark.expected)
        if label.leader:
            end = (label.leader[0], -label.leader[1])
            line = {"arrowstyle": "-", "color": color, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", place, end, textcoords="offset points", arrowprops=line)
        axes.annotate(
            label.text,
            place,
            (label.dx, -label.dy),
            textcoords="offset points",
            ha=_ALIGNED[label.anchor],
            va="baseline",
            fontsize=_FONT,
            color=color,
            parse_math=False,
            path_effects=[withStroke(linewidth=2, foreground="white")],
            zorder=6,
        ).set_in_layout(False)


def _bars(estimates: Sequence[Estimate]) -> list[list[float]]:
    below = [max(0.0, estimate.value - estimate.low) for estimate in estimates]
    return [below, [max(0.0, estimate.high - estimate.value) for estimate in estimates]]
