"""The loop inside a runner: read a call, do it, answer.

Messages are JSON, one a line. To the runner: ``{"operation", "arguments"}``. From it: once ``{"ready": layers}``, then
for every call any number of ``{"progress": ...}`` and one ``{"result": ...}`` or ``{"error": ...}``.
"""

import json
import os
import sys
import traceback
from pathlib import Path
from typing import IO

from infra.disk import disk_full
from infra.errors import ParetuneError
from infra.errors import RunnerError
from infra.json_types import JsonObject
from workers.runner.confine import confine
from workers.runner.operation import OperationContext
from workers.runner.operation import resolve
from workers.runner.options import RunnerOptions
from workers.runner.warden import stand_guard


def main(argument: str) -> None:
    """Serve calls until the parent closes the pipe.

    Args:
        argument: :class:`RunnerOptions` as JSON.
    """
    options = RunnerOptions(**json.loads(argument))
    layers = confine(options, parent=stand_guard(options.parent))
    requests, answers = _take_pipes()

    def send(message: JsonObject) -> None:
        answers.write(json.dumps(message, allow_nan=False) + "\n")
        answers.flush()

    context = OperationContext(
        role=options.role, workdir=Path(options.workdir), report=lambda payload: send({"progress": payload})
    )
    send({"ready": layers})
    for line in requests:
        call = json.loads(line)
        try:
            send({"result": resolve(options.registry, call["operation"])(call["arguments"], context)})
        except ParetuneError as error:
            send({"error": error.to_dict()})
        except MemoryError:
            send({"error": RunnerError("The work ran out of memory.", hint=_MEMORY_HINT).to_dict()})
        except Exception as error:
            traceback.print_exc()
            full = disk_full(error) if isinstance(error, OSError) else None
            send({"error": (full or _unexpected(error)).to_dict()})


_MEMORY_HINT = "Use a smaller model, a smaller batch, or a machine with more memory."


def _unexpected(error: Exception) -> RunnerError:
    return RunnerError(
        f"{type(error).__name__}: {str(error)[:500]}",
        hint="This is an error in the service or in a library; the worker's log has the details.",
    )


def _take_pipes() -> tuple[IO[str], IO[str]]:
    """Keep the pipes to the parent for ourselves: what libraries print goes to stderr, what they read is empty."""
    requests = os.fdopen(os.dup(0), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return requests, answers
