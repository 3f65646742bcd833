"""Durations as people write them: ``90s``, ``10m``, ``1h30m``."""

import re

import typer

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
LONGEST_SECONDS = 7 * 86400.0
"""Longest time of a job's search, and of its training."""
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def budget_duration(text: str) -> float:
    """Return seconds, as many as a job may have.

    Raises:
        typer.BadParameter: The text is not a duration, has no unit, or is none or more than a week.
    """
    seconds = parse_duration(text)
    if not 0 < seconds <= LONGEST_SECONDS:
        raise typer.BadParameter(f"{text!r} is not more than 0s and at most {LONGEST_SECONDS / _UNITS['d']:.0f}d")
    return seconds


def parse_duration(text: str) -> float:
    """Return seconds.

    Raises:
        typer.BadParameter: The text is not a duration, or has no unit.
    """
    text = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):  # who writes 10 for ten minutes would get a job of ten seconds
        raise typer.BadParameter(f"{text!r} has no unit; write {text}s, {text}m or {text}h")
    if text and re.fullmatch(f"(?:{_PART.pattern})+", text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    raise typer.BadParameter(f"{text!r} is not a duration; write 90s, 10m or 1h30m")


def format_duration(seconds: float) -> str:
    """Return ``1h 05m``, ``12m 30s`` or ``8s``."""
    total = max(0, round(seconds))
    if total >= 3600:
        return f"{total // 3600}h {total % 3600 // 60:02d}m"
    if total >= 60:
        return f"{total // 60}m {total % 60:02d}s"
    return f"{total}s"
