"""What the service refuses is said in the words of the command line, and both know the same values."""

from pathlib import Path
from typing import Any
from typing import get_args

import pytest
import typer.main
from pydantic import BaseModel
from typer.testing import CliRunner

from paretune.cli import durations
from paretune.cli import options
from paretune.cli.app import app
from paretune.cli.refusals import OPTIONS
from paretune.cli.refusals import as_typed
from paretune.errors import ApiError
from profilers.types import Objective
from search import requests
from tests.unit.api.test_cli import Run
from tests.unit.api.test_cli import data as data
from tests.unit.api.test_cli import folder as folder
from tests.unit.api.test_cli import parsed
from tests.unit.api.test_cli import run as run


def commands(group: Any) -> list[Any]:
    """Every command below a group, and the group itself."""
    below = getattr(group, "commands", {}).values()
    return [group, *(command for child in below for command in commands(child))]


def typed(command: Any) -> dict[str, Any]:
    """The parameters of a command by what is typed for them."""
    found = {}
    for parameter in command.params:
        for name in [*parameter.opts, parameter.metavar or ""]:
            found[name] = parameter
    return found


def limits(field: str) -> tuple[Any, Any]:
    """The least and the greatest value of a field of the job request; a limit itself counts where it is allowed."""
    model: type[BaseModel] = requests.JobRequest
    schema = model.model_json_schema()
    *path, last = field.split(".")
    for part in path:
        found = schema["properties"][part]
        (reference,) = (entry["$ref"] for entry in [found, *found.get("anyOf", [])] if "$ref" in entry)
        schema = {"$defs": schema["$defs"], **schema["$defs"][reference.rpartition("/")[2]]}
    entry = schema["properties"][last]
    number = next(one for one in [entry, *entry.get("anyOf", [])] if one.get("type") in {"number", "integer"})
    return number.get("minimum", number.get("exclusiveMinimum")), number.get("maximum")


def test_the_values_that_can_be_typed_are_those_that_the_service_takes() -> None:
    for ours, theirs in (
        (options.Task, requests.Task),
        (options.Objective, Objective),
        (options.Strategy, requests.Strategy),
        (options.Sampler, requests.Sampler),
        (options.Kind, requests.Kind),
        (options.IntegerFormat, requests.IntegerFormat),
        (options.RecoverMode, requests.Recover.model_fields["mode"].annotation),
    ):
        assert get_args(ours) == get_args(theirs)
    assert limits("budget.seconds")[1] == limits("recover.seconds")[1] == durations.LONGEST_SECONDS


@pytest.mark.parametrize(
    "field",
    ["budget.trials", "goal.max_drop", "priority", "workload.batch", "workload.sequence_length", "workload.threads"],
)
def test_limits_are_those_of_the_service(field: str) -> None:
    (submit,) = (command for command in commands(typer.main.get_command(app)) if command.name == "submit")
    accepted = typed(submit)[OPTIONS[field]]
    assert (accepted.min, accepted.max) == limits(field)


def test_every_name_can_be_typed() -> None:
    known = {name for command in commands(typer.main.get_command(app)) for name in typed(command)}
    assert set(OPTIONS.values()) <= known
    for field in OPTIONS:
        if "." in field:
            assert field.partition(".")[0] in requests.JobRequest.model_fields


def shown(result: Any) -> str:
    assert result.exit_code == 2, result.output
    return " ".join(result.output.split())


def test_refusals_of_the_service_name_what_was_typed(run: Run, folder: Path, data: Path) -> None:
    text = shown(run("submit", folder, "--data", data, "--objective", "peak_memory", "--max-latency", "5"))
    assert "Invalid request: --max-latency limits time" in text
    assert "give --max-drop." in text
    assert "max_latency_ms" not in text
    assert "/docs" not in text
    job = parsed(run("submit", folder, "--data", data, "--json"))["id"]
    text = shown(run("best", job, "--max-size", "1e12"))
    assert "Invalid request: --max-size: must be at most 1000000000." in text
    text = shown(run("keys", "add", "ci", "--expires", "soon", "--scope", "root"))
    assert "--expires: must be a valid datetime" in text
    assert "--scope: must be 'read', 'submit', 'admin' or 'device'" in text
    text = shown(run("devices", "add", "Big", "--profiler", "onnxruntime"))
    assert "name: has a character that is not allowed" in text
    # A script gets what the API says.
    error = parsed(run("best", job, "--max-size", "1e12", "--json"))["error"]
    assert error["errors"][0]["field"] == "query.max_size_mb"


def test_hints_that_name_fields_name_options_too() -> None:
    hint = "Raise goal.max_size_mb, or allow more kinds of compression in space.kinds."
    error = as_typed(ApiError("No model is below 3 MB.", hint=hint, code="infeasible-goal"))
    assert error.hint == "Raise --max-size, or allow more kinds of compression in --kinds."
    columns = [{"field": "label_column", "message": "missing column"}]
    error = as_typed(ApiError("There is no column 'label_column'.", code="invalid-dataset", errors=columns))
    assert (error.detail, error.errors) == ("There is no column 'label_column'.", columns)
    error = as_typed(ApiError("x", code="invalid-input", errors=[{"field": "priority", "message": "is above 3"}]))
    assert error.errors == [{"field": "--priority", "message": "is above 3"}]
    other = ApiError("The file task.device is missing: max_drop.", code="invalid-model")
    assert as_typed(other) is other


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--max-drop", "0.1", "--max-latency", "5"], "--max-latency"),
        (["--max-latency", "inf"], "--max-latency"),
        (["--max-size", "inf"], "--max-size"),
        (["--recover-mode", "race"], "--recover-mode"),
        (["--kinds", "heads,tails"], "--kinds"),
    ],
)
def test_what_is_refused_before_the_service_is_asked_is_json_too(
    arguments: list[str], option: str, folder: Path, data: Path
) -> None:
    command = ["submit", str(folder), "--data", str(data), *arguments, "--url", "http://127.0.0.1:9"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 2, result.output
    error = parsed(result)["error"]
    assert (error["code"], error["errors"][0]["field"]) == ("invalid-request", option)
    assert error["detail"].startswith(f"{option}: ")
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage:" in result.stderr
