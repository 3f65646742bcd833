"""Tables of models."""

from typing import Any

from rich.table import Table

JsonObject = dict[str, Any]


def megabytes(size: float | None) -> str:
    """Bytes as text."""
    return "–" if size is None else f"{size / 1e6:.1f} MB"


def _interval(estimate: JsonObject | None, form: str, scale: float = 1.0) -> str:
    if not estimate:
        return "–"
    value, low, high = (estimate[key] * scale for key in ("value", "low", "high"))
    return f"{value:{form}} [dim]({low:{form}}…{high:{form}})[/]"


def model_row(view: JsonObject) -> list[str]:
    """Return the cells of one model for :func:`front_table`."""
    latency, quality = view.get("latency") or {}, view.get("quality") or {}
    against_int8 = latency.get("speedup_vs_int8")
    return [
        str(view["number"]),
        str(view["name"]),
        _interval(latency.get("speedup"), ".2f"),
        f"{against_int8['value']:.2f}" if against_int8 else "–",
        f"{latency['latency_ms']:.2f}" if latency else "–",
        f"{quality['value']['value']:.4f}" if quality else "–",
        _interval(quality.get("drop"), "+.2f", 100.0),
        megabytes(view.get("size_bytes")),
        "" if view.get("confirmed") else "provisional",
    ]


def front_table(front: JsonObject) -> Table:
    """The front and its baselines, fastest first; the best model of the goal is marked."""
    table = Table(title=f"Front of job {front['job_id']} ({front['status']})", title_justify="left")
    for name, justify in (
        ("#", "right"),
        ("model", "left"),
        ("x fp32", "right"),
        ("x int8", "right"),
        ("ms", "right"),
        ("quality", "right"),
        ("drop, points", "right"),
        ("size", "right"),
        ("", "left"),
    ):
        table.add_column(name, justify="right" if justify == "right" else "left", no_wrap=name != "model")
    best = (front.get("best") or {}).get("id")
    for view in front["points"]:
        style = "bold green" if view["id"] == best else None
        table.add_row(*model_row(view), style=style)
    table.add_section()
    for view in front["baselines"]:
        table.add_row(*model_row(view), style="bold green" if view["id"] == best else "dim")
    return table
