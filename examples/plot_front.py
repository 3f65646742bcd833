"""A picture of a front: latency against loss of quality, with the baselines in it."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_ACCENT = "#0f766e"
_BASELINE = "#b45309"
_QUIET = "#94a3b8"


def plot_front(front: dict[str, Any], trials: list[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the front of a job.

    Args:
        front: What ``Client.front`` returned.
        trials: All trials of the job, as ``Client.trials`` returned them.
        path: The PNG file to write.
        title: Headline.
    """
    figure, axes = plt.subplots(figsize=(9, 5.5), dpi=150)
    others = [trial for trial in trials if trial["latency"] and trial["quality"] and trial["kind"] == "recipe"]
    axes.scatter(*_coordinates(others), s=16, color=_QUIET, label=f"tried ({len(others)})", zorder=2)
    points = sorted(front["points"], key=lambda point: point["latency"]["ratio"]["value"])
    speed, drop = _coordinates(points)
    axes.step(speed, drop, where="pre", color=_ACCENT, linewidth=1.2, zorder=3)
    axes.errorbar(speed, drop, yerr=_bars(points), fmt="o", color=_ACCENT, capsize=2, label="front, measured", zorder=4)
    for baseline in (entry for entry in front["baselines"] if entry["latency"] and entry["quality"]):
        x, y = _coordinates([baseline])
        axes.plot(x, y, "s", color=_BASELINE, zorder=5)
        axes.annotate(baseline["name"], (x[0], y[0]), textcoords="offset points", xytext=(7, 6), fontsize=8)
    axes.set_xlabel("speed-up over the dense fp32 model, measured on the device")
    axes.set_ylabel("loss of quality against the dense model, points")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)


def _coordinates(entries: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    speed = [entry["latency"]["speedup"]["value"] for entry in entries]
    return speed, [100 * entry["quality"]["drop"]["value"] for entry in entries]


def _bars(entries: list[dict[str, Any]]) -> list[list[float]]:
    drops = [entry["quality"]["drop"] for entry in entries]
    below = [100 * max(0.0, drop["value"] - drop["low"]) for drop in drops]
    return [below, [100 * max(0.0, drop["high"] - drop["value"]) for drop in drops]]
