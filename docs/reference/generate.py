"""Writes the reference pages that follow from the code: ``python -m docs.reference.generate``.

A test compares the pages with what this module returns, so they cannot grow old.
"""

import ast
import inspect
import json
import re
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import Literal
from typing import get_args
from typing import get_origin

import typer.main
from pydantic import BaseModel

from compressors import recipe
from compressors.recovery.config import LossWeights
from infra.settings import Settings
from paretune.cli.app import app
from profilers.types import Workload
from search import requests

FOLDER = Path(__file__).parent
_NOTE = "<!-- Written by `python -m docs.reference.generate`; edit the code or that module, not this file. -->"

_MACHINE_DEFAULTS = {
    "runner_memory_bytes": "three quarters of the memory of the machine, or of its container where that has less",
    "host_lock_directory": "the system's directory for temporary files",
}
"""Settings whose default is computed from the machine."""

_MEANINGS = {
    "Settings.host": "Address that the API listens at.",
    "Settings.port": "TCP port that the API listens at.",
    "Settings.max_json_bytes": "Largest JSON body of a request.",
    "Settings.runner_cpu_seconds": "CPU time that a runner may use.",
    "Recipe.version": "Version of this description.",
    "Recipe.quantization": "How weights with few bits are stored and multiplied.",
    "Recipe.graph": "How the ONNX graph is written.",
    "Recipe.seed": "Part of the candidate's name; no method of today draws random numbers from it.",
    "LayerRecipe.attention": "The attention branch.",
    "LayerRecipe.feed_forward": "The feed-forward branch.",
    "FeedForwardRecipe.rank": "Rank of both matrices; `null`: full.",
    "FeedForwardRecipe.sparsity": "Fraction of the surviving weights that is set to zero.",
    "FeedForwardRecipe.mask": "How the zeros are chosen where `sparsity` > 0.",
    "FeedForwardRecipe.pattern": "`2:4`: two of every four consecutive weights stay; `sparsity` is 0.5 then.",
    "FeedForwardRecipe.bits": "Weight bit-width of both matrices.",
    "BaselineCandidate.kind": "Tells a baseline from a recipe.",
    "BaselineCandidate.name": "See [reading results](../guides/reading-results.md#baselines).",
    "JobRequest.model_id": "An uploaded model whose state is `ready`.",
    "JobRequest.dataset_id": "Examples that quality is judged on.",
    "JobRequest.task": "What the model's output means.",
    "JobRequest.columns": "Where text and labels are in the data.",
    "JobRequest.workload": "Shape and threads that latency is measured at.",
    "JobRequest.goal": "Which model is the best.",
    "JobRequest.budget": "When to stop.",
    "JobRequest.space": "What may be tried.",
    "JobRequest.strategy": "See [how it works](../guides/how-it-works.md#search-strategies).",
    "JobRequest.sampler": "Optuna sampler of the strategies `direct` and `guided`.",
    "JobRequest.seed": "Of splits, sampler and measurement order.",
    "JobRequest.name": "What to call the job.",
    "JobRequest.priority": "9 is served first.",
    "Budget.seconds": "Seconds from the moment that the job runs; `null`: no time limit.",
    "Budget.trials": "Candidates that may be tried, baselines not counted; `null`: no limit.",
    "Columns.text_column": "The text, or the first of a pair.",
    "Columns.second_text_column": "The second text of a pair.",
    "Workload.batch": "Texts in one call.",
    "Workload.sequence_length": "Tokens of each text; longer texts are cut.",
    "Workload.threads": "Threads of the runtime.",
    "Space.kinds": "Kinds of compression; those that the device does not gain from are left out.",
    "Space.head_step": "Heads are tried in steps of this many (`direct`, `random`).",
    "Space.ffn_step": "Feed-forward channels are tried in steps of this many (`direct`, `random`).",
    "Space.min_layers": "Layers that always stay.",
}
"""Meanings of fields that have none in the code, because their names say enough to its readers."""

_SETTINGS = """# Settings

The service reads its settings once, at start, from environment variables. The defaults describe the embedded
service; the scaled-out service sets `PARETUNE_DATABASE_URL`, `PARETUNE_BROKER_URL` and `PARETUNE_STORE_URL`. Lists are
JSON: `PARETUNE_ALLOWED_HOSTS='["localhost", "compress.example.org"]'`. Sizes are bytes, times are seconds.
"""

_CLIENT_VARIABLES = """## Variables of the client

The command line and the Python SDK read these. An argument wins over the variable, the variable over the files that
`paretune up` writes into its home.

| variable | meaning |
|---|---|
| `PARETUNE_URL` | where the service is; else the file `url` in the home, else `http://127.0.0.1:8765` |
| `PARETUNE_API_KEY` | the API key `prefix.secret`; else the file `api-key` in the home |
| `PARETUNE_HOME` | the home of the embedded service; else `~/.paretune` |
"""

_RECIPE = """# Recipe

A recipe describes one candidate completely. Together with the model and the calibration it determines the bytes of
the artifact. It is JSON: in `paretune best JOB --json`, in every trial of the API, and in `manifest.json` under
`candidate`. The sha256 of its canonical JSON is the candidate's `digest`.

Not every value is searched. A job varies heads, widths, removed layers, ranks and bits, and takes the graph, the
quantisation scheme and the precision that its device prefers. The other values can be used through `compressors`; see
[methods](../guides/methods.md).
"""

_REQUEST = """# Job request

The body of `POST /v1/jobs`. Fields that are not listed are refused. Command line options and SDK arguments end up in
the same fields. The [OpenAPI document](openapi.json) has every other body.
"""

_CLI = """# Command line

Where the service is: `--url` or `PARETUNE_URL`, else what `paretune up` wrote into `--home`. Exit codes: 0 success, 1
the service or the job failed, 2 the request was wrong, 130 interrupted. With `--json` a command prints one JSON object,
also for errors: `{"error": {"code", "title", "status", "detail", "hint", "errors", "request_id"}}`. Options that cannot
be read at all, such as an unknown one, a word for a number or a budget without a unit, are refused as text on stderr,
with exit code 2.
"""


def pages() -> dict[str, str]:
    """Return the text of every generated page by its file name."""
    return {
        "cli.md": _page(_CLI, *_commands(typer.main.get_command(app), "paretune")),
        "recipe.md": _page(_RECIPE, *map(_model_section, _recipe_classes())),
        "request.md": _page(_REQUEST, *map(_model_section, _request_classes())),
        "settings.md": _page(_SETTINGS, _settings_table(), _CLIENT_VARIABLES),
    }


def main() -> None:
    """Write all pages."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


def _page(*parts: str) -> str:
    return "\n".join([_NOTE, *(part.rstrip() + "\n" for part in parts)])


def _recipe_classes() -> list[type[BaseModel]]:
    return [
        recipe.Recipe,
        recipe.LayerRecipe,
        recipe.AttentionRecipe,
        recipe.FeedForwardRecipe,
        recipe.QuantizationRecipe,
        recipe.GraphRecipe,
        recipe.BaselineCandidate,
    ]


def _request_classes() -> list[type[BaseModel]]:
    return [
        requests.JobRequest,
        requests.Goal,
        requests.Budget,
        requests.Recover,
        LossWeights,
        requests.Columns,
        Workload,
        requests.Space,
    ]


def _settings_table() -> str:
    schema = Settings.model_json_schema()
    meanings = field_meanings(Settings)
    home = Path("/HOME")
    rows = []
    for name, field in Settings.model_fields.items():
        default = _MACHINE_DEFAULTS.get(name)
        if default is None:
            value = field.get_default(call_default_factory=True, validated_data={"home": home})
            default = f"`{_plain(value)}`".replace(str(home), "<home>")
        rows.append((f"`PARETUNE_{name.upper()}`", _type(schema["properties"][name]), default, meanings.get(name, "")))
    assert tempfile.gettempdir() not in str(rows), "a default of this machine would be written down"
    return _table(("variable", "type", "default", "meaning"), rows)


def _model_section(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    meanings = field_meanings(model)
    rows = []
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else f"`{_default(field.default)}`"
        rows.append((f"`{name}`", _type(schema["properties"][name]), default, meanings.get(name, "")))
    text = _markdown(inspect.getdoc(model) or "")
    return f"## {model.__name__}\n\n{text}\n\n{_table(('field', 'type', 'default', 'meaning'), rows)}"


def field_meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what the fields of a class mean, by field, as Markdown: the texts that follow them in its source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    found: dict[str, str] = {}
    previous: str | None = None
    for statement in definition.body:
        text = statement.value if isinstance(statement, ast.Expr) else None
        if previous and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[previous] = _markdown(text.value)
        is_field = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
        previous = statement.target.id if is_field else None  # type: ignore[attr-defined,union-attr]
    own = {name.partition(".")[2]: text for name, text in _MEANINGS.items() if name.startswith(f"{model.__name__}.")}
    return own | found


def _markdown(text: str) -> str:
    text = text.replace("``None``", "``null``")
    text = re.sub(r":\w+:`\.?([^`]+)`", r"`\1`", text)
    return " ".join(text.replace("``", "`").split())


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "{}"
    return _plain(value)


def _plain(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool | tuple | list):
        return json.dumps(value)
    return str(value)


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        items = schema.get("items", {})
        return f"list of {_type(items)}" if items else "list"
    names = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "maxLength": "length ≤"}
    limits = [f"{sign} {schema[name]:g}" for name, sign in names.items() if name in schema]
    return f"{kind} {', '.join(limits)}".strip()


def _commands(command: Any, name: str) -> Iterator[str]:
    if name != "paretune":
        yield _command_section(command, name)
    for child_name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{name} {child_name}")


def _command_section(command: Any, name: str) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join([name, *map(_metavar, arguments), "[OPTIONS]"])
    text, _, examples = inspect.cleandoc(command.help or "").partition("\b")
    parts = [f"## {name}", text.strip(), f"    {usage}"]
    if arguments:
        rows = [(f"`{_metavar(argument)}`", argument.help or "") for argument in arguments]
        parts.append(_table(("argument", "meaning"), rows))
    shown = [option for option in options if option.name != "help"]
    rows = [(", ".join(f"`{flag}`" for flag in _flags(option)), _value(option), option.help or "") for option in shown]
    parts.append(_table(("option", "value", "meaning"), rows))
    if examples.strip():
        lines = textwrap.dedent(examples.split("\n", 2)[2]).rstrip()
        lines = re.sub(r" {2,}\((.*)\)$", r"  # \1", lines, flags=re.MULTILINE)
        parts.append(f"```sh\n{lines}\n```")
    return "\n\n".join(parts)


def _metavar(argument: Any) -> str:
    return str(argument.metavar or argument.name).upper()


def _flags(option: Any) -> list[str]:
    return [*option.opts, *option.secondary_opts]


def _value(option: Any) -> str:
    if option.is_flag:
        default = option.opts if option.default else option.secondary_opts
        return f"default `{default[0]}`" if option.secondary_opts else ""
    default = option.default
    choices = " | ".join(f"`{choice}`" for choice in _choices(option.type_descriptor.annotation))
    text = choices or f"`{option.metavar or option.opts[0].lstrip('-').upper()}`"
    if option.required:
        return f"{text}, required"
    return text if default is None or callable(default) else f"{text}, default `{default}`"


def _choices(annotation: Any) -> tuple[Any, ...]:
    """Return the values of a ``Literal``, alone or as one of several types."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    return tuple(choice for part in get_args(annotation) for choice in _choices(part))


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
