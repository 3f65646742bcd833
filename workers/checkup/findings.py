"""What a check says."""

from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from infra.settings import Settings


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    name: str
    status: Literal["ok", "warning", "problem"]
    detail: str
    hint: str = ""
    """What to do; empty if nothing."""


Check = Callable[[Settings], Iterator[Finding]]
"""Looks at one part; what it raises becomes a problem with the name of the check."""


def judged(name: str, *, good: bool, detail: str, hint: str, otherwise: Literal["warning", "problem"]) -> Finding:
    """Return ``ok`` without a hint, or the other status with it."""
    return Finding(name, "ok" if good else otherwise, detail, "" if good else hint)
