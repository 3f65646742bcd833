"""What commands print: text for people on the terminal, or one JSON object for scripts."""

import functools
import json
import sys
from collections.abc import Callable
from typing import Any
from typing import NoReturn
from typing import ParamSpec
from typing import TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from paretune.cli.refusals import as_typed
from paretune.errors import ApiError

FAILED = 1
"""Exit code: the service could not be reached, failed, or the job failed."""
WRONG_REQUEST = 2
"""Exit code: what was asked for cannot be done as asked; also wrong options."""

P = ParamSpec("P")
R = TypeVar("R")

console = Console(highlight=False, emoji=False)
errors = Console(stderr=True, highlight=False, emoji=False)


def print_json(value: Any) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(_plain(value), indent=2, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def print_error(error: ApiError) -> None:
    """Print what is wrong, why, and what to do."""
    error = as_typed(error)
    errors.print(f"[bold red]{escape(error.title)}:[/] {escape(error.detail)}")
    for problem in error.errors:
        line = ": ".join(filter(None, map(str, (problem.get("field"), problem.get("message")))))
        if str(problem.get("message", "")) not in error.detail:
            errors.print(f"  [red]•[/] {escape(line)}")
    if error.hint:
        errors.print(f"[bold]What to do:[/] {escape(error.hint)}")
    if error.status >= 500 and error.request_id:
        errors.print(f"[dim]Request {escape(error.request_id)}[/]")


def exit_code(error: ApiError) -> int:
    """2 if the request was wrong, 1 if the service or the job failed."""
    wrong = 400 <= error.status < 500 and error.status not in {408, 425, 429}
    refused_here = error.code in {"invalid-model", "invalid-dataset", "invalid-request", "client"}
    return WRONG_REQUEST if wrong or refused_here else FAILED


def fail(error: ApiError, *, as_json: bool) -> NoReturn:
    """Report an error and end the command."""
    if as_json:
        print_json({"error": error.to_dict()})
    else:
        print_error(error)
    raise typer.Exit(exit_code(error))


def _refused(error: typer.BadParameter) -> ApiError:
    option = str(error.param_hint or "")
    return ApiError(
        ": ".join(filter(None, (option, error.message))) + ".",
        hint="The command with --help says what each option takes.",
        code="invalid-request",
        title="Invalid request",
        errors=[{"field": option, "message": error.message}],
    )


def reported(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: errors become a message or a JSON object, and an exit code, never a traceback."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        as_json = bool(kwargs.get("as_json"))
        try:
            return command(*args, **kwargs)
        except ApiError as error:
            fail(error, as_json=as_json)
        except TimeoutError as error:
            fail(ApiError(f"{error}.", hint="Ask again later; the service goes on.", code="time-out"), as_json=as_json)
        except typer.BadParameter as error:
            if not as_json:
                raise  # the usage of the command belongs to it
            fail(_refused(error), as_json=True)
        except KeyboardInterrupt:
            errors.print("\nStopped watching; what runs on the service goes on.")
            raise typer.Exit(130) from None

    return wrapper
