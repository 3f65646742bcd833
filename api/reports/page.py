"""Reports as HTML: one file without script and without anything from elsewhere."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from jinja2 import Environment
from jinja2 import PackageLoader
from jinja2 import StrictUndefined

from api.reports.chart import Chart
from api.reports.chart import chart_of
from api.reports.chart import scaled
from api.reports.heatmap import KINDS
from api.reports.heatmap import heatmap
from api.reports.labels import Box
from api.reports.labels import Canvas
from api.reports.labels import Label
from api.reports.labels import place_goal
from api.reports.labels import place_labels
from profilers.types import Estimate
from search.objectives import WORDINGS
from search.views import LatencyView
from search.views import ReportView
from search.views import TrialView

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content security policy of a page, in the page itself: it holds for a saved file as well."""

PHASES = ("queued", "prepare", "learn", "search", "recover", "finalise")
HEADLINES = {
    "better_model": "There is a better model",
    "leave_it_alone": "Leave it alone",
    "goal_out_of_reach": "The goal is out of reach",
    "nothing_measured": "Nothing has been measured yet",
}
EARLY = {
    "first_divergence": "divergence, first part of the search part",
    "divergence": "divergence from the dense model, search part",
    "drop": "loss, search part",
    "predicted_latency": "predicted latency",
}
CANVAS = Canvas(width=796, height=400, font_size=13, front=10, baseline=6, tried=3.2, best=15)
"""The plot in units of the SVG, with the sizes of its marks as style sheet and template have them."""
LATE = {"drop": "loss, search part", "holdout_drop": "loss, held-out part", "latency": "measured latency"}


def subject_of(report: ReportView) -> str:
    """Return what a report is about: the model, the device and the workload."""
    workload = report.request["workload"]
    shape = f"{workload['batch']} × {workload['sequence_length']} tokens"
    threads = "one thread" if workload["threads"] == 1 else f"{workload['threads']} threads"
    return f"{report.model} on {report.request['device']}, {shape}, {threads}"


def job_page(report: ReportView) -> str:
    """Return the page about a job's outcome so far."""
    phases = (report.summary or {}).get("wall_seconds") or {}
    chart = chart_of(report)
    goal, labels = labels_of(chart)
    return (
        _environment()
        .get_template("job.html")
        .render(
            report=report,
            title=report.name or report.model,
            subject=subject_of(report),
            objective=WORDINGS[report.front.objective],
            chart=chart,
            canvas=CANVAS,
            goal=goal,
            labels=labels,
            headline=HEADLINES[report.front.verdict],
            models=[*report.front.points, *report.front.baselines],
            rivals=_rivals(report),
            phases=[(name, phases[name]) for name in PHASES if phases.get(name, 0) > 0],
            wall=phases,
        )
    )


def model_page(report: ReportView, trial: TrialView) -> str:
    """Return the page about one model."""
    return (
        _environment()
        .get_template("model.html")
        .render(
            report=report,
            title=f"{report.name or report.model}: trial {trial.number}",
            subject=subject_of(report),
            objective=WORDINGS[report.front.objective],
            trial=trial,
            rivals=_rivals(report),
        )
    )


def labels_of(chart: Chart) -> tuple[Label | None, dict[int, Label]]:
    """Return where the text about the goal and the names of the baselines go in the page's picture."""
    goal = None
    taken = [Box.of_text(CANVAS.width - 8, 16.0, "end", "better ↗", CANVAS.font_size)]
    if chart.most_drop is not None:
        goal = place_goal(chart, CANVAS, f"goal: loss ≤ {chart.most_drop:g}")
        taken.append(goal.box)
    return goal, place_labels(chart, CANVAS, [(mark, mark.name) for mark in chart.baselines], taken)


def _rivals(report: ReportView) -> list[str]:
    """Names of the baselines that models are held against, in the order of the report."""
    models = [*report.front.points, *report.front.baselines]
    compared = {name for view in models if view.latency for name in view.latency.speedup_vs}
    return [view.name for view in report.front.baselines if view.name in compared]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("api.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(relates=_relates, heatmap=heatmap, KINDS=KINDS, POLICY=POLICY, EARLY=EARLY, LATE=LATE)
    environment.filters.update(
        size=_size,
        signed=_signed,
        points=scaled,
        seconds=_seconds,
        measured=_measured,
        predicted=_predicted,
        detail=_detail,
    )
    return environment


def _signed(value: float) -> str:
    """Return a number with its sign and two decimals; what rounds to zero is positive."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _size(size: int | None) -> str:
    if size is None:
        return "–"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _seconds(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _relates(trials: Iterable[TrialView]) -> bool:
    """Whether these are embedding models: how the similarities of texts changed is known of them."""
    return any(trial.quality and "neighbour_overlap" in trial.quality.details for trial in trials)


def _detail(trial: TrialView, name: str, form: str) -> str:
    """Return a further number of a model's quality, a dash where there is none."""
    details = trial.quality.details if trial.quality else {}
    return form.format(details[name]) if name in details else "–"


def _measured(trial: TrialView) -> Estimate:
    """Return the latency (ms) or memory (MB) with the interval of its ratio: the reference is taken as exact."""
    latency = trial.latency
    assert latency is not None
    return scaled(latency.ratio, _value(latency) / latency.ratio.value)


def _value(latency: LatencyView) -> float:
    """Return what the objective measures: milliseconds, or megabytes."""
    return (latency.peak_memory_mb or 0.0) if latency.objective == "peak_memory" else latency.latency_ms


def _predicted(trial: TrialView) -> dict[str, Any] | None:
    """Return the latency (ms) or memory (MB) that was predicted before measuring, and its relative error."""
    latency = trial.latency
    if latency is None or latency.predicted_ratio is None:
        return None
    ratio = latency.predicted_ratio / latency.ratio.value
    return {"value": ratio * _value(latency), "error": ratio - 1.0}
