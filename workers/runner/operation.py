"""What runs inside a runner."""

import importlib
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any
from typing import Literal
from typing import cast

from infra.errors import RunnerError
from infra.json_types import JsonObject

Role = Literal["compute", "device"]
"""``compute``: builds and evaluates, with many threads. ``device``: measures, with one."""


@dataclass
class OperationContext:
    """What an operation knows beside its arguments."""

    role: Role
    workdir: Path
    """The job's work directory on this host; it outlives the runner."""
    report: Callable[[JsonObject], None]
    state: dict[str, Any] = field(default_factory=dict)
    """Lives as long as the runner: loaded models, open sessions. A job never sees another job's."""

    def progress(self, payload: JsonObject) -> None:
        """Tell the watchers of the job how far it is."""
        self.report(payload)


Operation = Callable[[JsonObject, OperationContext], JsonObject]
"""``operation(arguments, context) -> result``; arguments and result are JSON."""


def resolve(registry: str, name: str) -> Operation:
    """Import an operation by its name.

    Args:
        registry: A module with ``OPERATIONS``, a mapping from names to ``"module:function"``.
        name: A name in it.

    Raises:
        RunnerError: There is no such operation.
    """
    operations: Mapping[str, str] = importlib.import_module(registry).OPERATIONS
    try:
        module, function = operations[name].split(":")
    except KeyError:
        raise RunnerError(f"There is no operation {name!r} in {registry}.") from None
    return cast("Operation", getattr(importlib.import_module(module), function))
