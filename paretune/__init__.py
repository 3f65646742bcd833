"""The client: SDK, command line, and the loader for compressed torch artifacts."""

from typing import TYPE_CHECKING
from typing import Any

if TYPE_CHECKING:
    from paretune.artifact.loader import load
    from paretune.client import Client
    from paretune.errors import ApiError
    from paretune.errors import JobFailedError

__all__ = ["ApiError", "Client", "JobFailedError", "load"]

_HOMES = {
    "load": "paretune.artifact.loader",  # imports torch, which the rest of the package does without
    "Client": "paretune.client",
    "ApiError": "paretune.errors",
    "JobFailedError": "paretune.errors",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
