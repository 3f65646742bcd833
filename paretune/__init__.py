"""The client: SDK, command line, and the loader for compressed torch artifacts."""

from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from paretune.artifact.loader import load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # imports torch, which the rest of the package does without
        from paretune.artifact.loader import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
