"""Tables of models."""

from typing import Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

JsonObject = dict[str, Any]

_LEAST_NAME = 12
"""Characters of a model's name that a table shows in one line at least."""
_BORDERS = 3
"""Characters around a cell."""
_ONLY_WIDE = ("quality", "size")
"""Columns that a narrow terminal does without: nothing is chosen by them."""
_FACTORS = {
    "p90": "x fp32 at p90",
    "p99": "x fp32 at p99",
    "throughput": "x fp32 in throughput",
    "peak_memory": "x less memory than fp32",
}

RELATIONAL = {"neighbour_overlap": "neighbours", "similarity_spearman": "rank corr."}
"""How well embeddings keep the similarities of texts: details of the quality, and their columns."""


def factor(objective: str | None) -> str:
    """What follows a factor over fp32, as short as a line on a terminal wants it."""
    return _FACTORS.get(objective or "p50", "x fp32")


def format_size(size: float | None) -> str:
    """Bytes as text."""
    if size is None:
        return "–"
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _interval(estimate: JsonObject | None, form: str, *, scale: float = 1.0, wide: bool) -> str:
    if not estimate:
        return "–"
    value, low, high = (estimate[key] * scale for key in ("value", "low", "high"))
    return f"{value:{form}} [dim]({low:{form}}…{high:{form}})[/]" if wide else f"{value:{form}}"


def model_cells(view: JsonObject, *, wide: bool, relational: bool) -> dict[str, str]:
    """Return the cells of one model by column.

    Args:
        view: The model.
        wide: With intervals and with what is not needed to choose.
        relational: With how well similarities of embeddings are kept.
    """
    latency, quality = view.get("latency") or {}, view.get("quality") or {}
    against_int8, expected = latency.get("speedup_vs_int8"), quality.get("expected_drop")
    in_memory = latency.get("objective") == "peak_memory"
    cells = {
        "#": str(view["number"]),
        "model": escape(str(view["name"])),
        "x fp32": _interval(latency.get("speedup"), ".2f", wide=wide),
        "x int8": f"{against_int8['value']:.2f}" if against_int8 else "–",
        ("MB" if in_memory else "ms"): _absolute(latency, in_memory=in_memory),
        "quality": f"{quality['value']['value']:.4f}" if quality else "–",
        "drop, points": _interval(quality.get("drop"), "+.2f", scale=100.0, wide=wide),
        "expected": "–" if expected is None else f"{100 * expected:+.2f}",
        "size": format_size(view.get("size_bytes")),
    }
    if not wide:
        cells = {name: cell for name, cell in cells.items() if name not in _ONLY_WIDE}
    if not relational:
        return cells
    details = quality.get("details") or {}
    return cells | {title: f"{details[name]:.3f}" for name, title in RELATIONAL.items() if name in details}


def _absolute(latency: JsonObject, *, in_memory: bool) -> str:
    if not latency:
        return "–"
    return f"{latency['peak_memory_mb']:.1f}" if in_memory else f"{latency['latency_ms']:.2f}"


def front_table(front: JsonObject, width: int) -> Table:
    """The front and its baselines, the best by the objective first; the best model of the goal is marked.

    Args:
        front: Answer of ``GET /v1/jobs/{id}/front``.
        width: Columns of the terminal.
    """
    models = [(view, None) for view in front["points"]] + [(view, "dim") for view in front["baselines"]]
    title = f"Front of job {front['job_id']} ({front['status']}) by {front['objective_name']}"
    notes = [front.get("reference_note"), *front.get("notes", ())]  # what the factors and the front do not say
    caption = "\n".join(escape(note) for note in notes if note)
    table = Table(title=escape(title), title_justify="left", caption=caption or None, caption_justify="left")
    rows = _rows([view for view, _ in models], width)
    columns = list(dict.fromkeys(name for cells in rows for name in cells))
    for name in columns:
        table.add_column(name, justify="left" if name == "model" else "right", no_wrap=name != "model")
    best = (front.get("best") or {}).get("id")
    for index, (view, style) in enumerate(models):
        last_of_front = index + 1 == len(front["points"])
        marked = "bold green" if view["id"] == best else style
        cells = [rows[index].get(name, "–") for name in columns]
        table.add_row(*cells, style=marked, end_section=last_of_front)
    return table


def _rows(views: list[JsonObject], width: int) -> list[dict[str, str]]:
    """Return the cells of all models: as much of each as there is room for in a line."""
    for wide, relational in ((True, True), (False, True)):
        rows = [model_cells(view, wide=wide, relational=relational) for view in views]
        if _width(rows) <= width:
            return rows
    return [model_cells(view, wide=False, relational=False) for view in views]


def _width(rows: list[dict[str, str]]) -> int:
    widths: dict[str, int] = {}
    for cells in rows:
        for name, cell in cells.items():
            widths[name] = max(widths.get(name, len(name)), Text.from_markup(cell).cell_len)
    if "model" in widths:
        widths["model"] = min(widths["model"], _LEAST_NAME)
    return sum(width + _BORDERS for width in widths.values()) + 1
