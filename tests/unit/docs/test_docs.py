"""What the documentation says exists: links, commands, settings, tests, operations, fields, and code that compiles."""

import ast
import importlib
import inspect
import json
import re
import shlex
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer import Exit

from compressors.recipe import AttentionRecipe
from compressors.recipe import Recipe
from docs.reference import generate
from infra.settings import Settings
from paretune import Client
from paretune.cli.app import app
from search.requests import JobRequest
from tests.unit.docs.documents import PAGES
from tests.unit.docs.documents import ROOT
from tests.unit.docs.documents import WRITTEN_HERE
from tests.unit.docs.documents import Fence
from tests.unit.docs.documents import anchors
from tests.unit.docs.documents import command_lines
from tests.unit.docs.documents import fences
from tests.unit.docs.documents import name_of
from tests.unit.docs.documents import prose

CLIENT_VARIABLES = {"PARETUNE_URL", "PARETUNE_API_KEY", "PARETUNE_HOME"}
COMPOSE_VARIABLES = {"PARETUNE_PORT"}
OPENAPI: dict[str, Any] = json.loads((ROOT / "docs/reference/openapi.json").read_text(encoding="utf-8"))

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.mark.parametrize("name", generate.pages())
def test_generated_pages_are_current(name: str) -> None:
    current = (ROOT / "docs/reference" / name).read_text(encoding="utf-8")
    assert current == generate.pages()[name], "run: python -m docs.reference.generate"


def test_both_ways_of_a_switch_are_in_the_reference() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert "| `--repair`, `--no-repair` | default `--repair` |" in text


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if linked.suffix != ".png":  # pictures of results are written by benchmarks
            assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    inline = re.findall(r"`(paretune [a-z][^`]*)`", prose(page))
    for text in [*(fence.text for fence in fences("sh", [page])), *inline]:
        for line in command_lines(text):
            parse(shlex.split(line.replace("[OPTIONS]", "").replace("…", "0.5")))


def parse(words: list[str]) -> None:
    """Let the command line read its arguments, without running the command."""
    command: Any = typer.main.get_command(app)
    path = ["paretune"]
    while words and words[0] in getattr(command, "commands", {}):
        path.append(words[0])
        command = command.commands[words.pop(0)]
    is_mention = not words  # such as `paretune best`: the name of a command, not a call
    if not is_mention:
        assert not hasattr(command, "commands") or words[0].startswith("-"), f"{path} has no command {words[0]}"
        with suppress(Exit):  # --help
            command.make_context(" ".join(path), words)


@each_page
def test_settings_exist(page: Path) -> None:
    known = {f"PARETUNE_{name.upper()}" for name in Settings.model_fields} | CLIENT_VARIABLES | COMPOSE_VARIABLES
    mentioned = set(re.findall(r"PARETUNE_[A-Z_]*[A-Z]", page.read_text(encoding="utf-8")))
    assert mentioned <= known


@each_page
def test_files_modules_and_tests_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path, name in re.findall(r"`?(tests/[\w/]+\.py)(?:::(\w+))?", text):
        assert (ROOT / path).is_file(), path
        assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8") if name else True, name
    for path in re.findall(r"`((?:api|compressors|infra|paretune|profilers|search|workers)/[\w/]*(?:\.py)?)`", text):
        assert (ROOT / path).exists(), path
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert importlib.util.find_spec(module) is not None, module


@each_page
def test_benchmarks_have_the_options_that_they_need(page: Path) -> None:
    text = " ".join(page.read_text(encoding="utf-8").split())
    for module, given in re.findall(r"python -m (benchmarks\.\w+)([^`]*)", text):
        spec = importlib.util.find_spec(module)
        assert spec is not None, module
        main = Path(str(spec.origin)).with_name("__main__.py") if spec.submodule_search_locations else spec.origin
        source = Path(str(main)).read_text(encoding="utf-8")
        known = set(re.findall(r'"(--[\w-]+)"', source))
        required = set(re.findall(r'add_argument\("(--[\w-]+)"[^\n]*required=True', source))
        options = set(re.findall(r"--[\w-]+", given))
        assert options <= known, (module, options - known)
        assert "..." in given or required <= options, (module, required - options)


@each_page
def test_nothing_speaks_of_the_machine_it_was_written_on(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.findall(r"/work/|/root/|/home/\w|/tmp/|/Users/", text)


@pytest.mark.parametrize("page", WRITTEN_HERE, ids=name_of)
def test_operations_exist(page: Path) -> None:
    templates = {re.sub(r"\{[^}]*\}", "{}", path): set(methods) for path, methods in OPENAPI["paths"].items()}
    mentioned = re.findall(
        r"(GET|POST|PUT|DELETE|PATCH)?\s?`?(/(?:v1|health|metrics)[\w/{}.$-]*)", page.read_text("utf-8")
    )
    for method, path in mentioned:
        generic = re.sub(r"\{[^}]*\}|\$\w+", "{}", path.rstrip(".`"))
        generic = re.sub(r"(files/)[\w.]+$", r"\1{}", generic)
        assert generic in templates, path
        assert not method or method.lower() in templates[generic], (method, path)


@pytest.mark.parametrize("fence", fences("python"), ids=lambda fence: fence.name)
def test_python_compiles_and_calls_what_there_is(fence: Fence) -> None:
    tree = ast.parse(fence.text)
    compile(tree, fence.name, "exec")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(str(node.module)) if _is_ours(str(node.module)) else None
            assert all(hasattr(module, alias.name) for alias in node.names) if module else True, ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).startswith("client."):
            method = getattr(Client, ast.unparse(node.func).removeprefix("client."))
            keywords: dict[str, Any] = {str(keyword.arg): None for keyword in node.keywords}
            inspect.signature(method).bind(None, *node.args, **keywords)


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in {"paretune", "profilers", "infra", "search", "compressors", "api", "workers"}


@pytest.mark.parametrize("fence", fences("sh"), ids=lambda fence: fence.name)
def test_shell_parses(fence: Fence) -> None:
    done = subprocess.run(["bash", "-n"], input=fence.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_strategy_kind_and_verdict_is_explained() -> None:
    strategies = JobRequest.model_fields["strategy"].annotation
    explained = (ROOT / "docs/guides/how-it-works.md").read_text(encoding="utf-8")
    assert all(f"**`{name}`**" in explained for name in strategies.__args__)  # type: ignore[union-attr]
    results = (ROOT / "docs/guides/reading-results.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in results for name in _literal("search.goals", "Verdict"))
    views = importlib.import_module("search.views")
    fields = {*views.LatencyView.model_fields, *views.QualityView.model_fields}
    assert {name for name in fields if f"`{name}`" not in results} <= {"speedup", "speedup_vs_int8"}
    summary = inspect.getsource(importlib.import_module("search.summary").summarise)
    assert {name for name in re.findall(r'^        "(\w+)":', summary, re.MULTILINE) if f"`{name}`" not in results} <= {
        "confirmed"
    }


def _literal(module: str, name: str) -> tuple[str, ...]:
    return tuple(getattr(importlib.import_module(module), name).__args__)


def test_every_recipe_choice_is_explained() -> None:
    methods = (ROOT / "docs/guides/methods.md").read_text(encoding="utf-8")
    for model, name in (
        (Recipe, "criterion"),
        (Recipe, "compensation"),
        (Recipe, "factorization"),
        (AttentionRecipe, "mask"),
        (AttentionRecipe, "pattern"),
    ):
        annotation: Any = model.model_fields[name].annotation
        assert all(choice in methods for choice in annotation.__args__), name
    modules = (ROOT / "compressors/methods").glob("*.py")
    cited = {number for path in modules for number in re.findall(r"arXiv:\s?(\d{4}\.\d{5})", path.read_text("utf-8"))}
    assert cited
    assert all(number in methods for number in cited)


def test_numbers_are_those_of_the_code() -> None:
    splits = importlib.import_module("profilers.quality.splits").SHARES
    standing = importlib.import_module("search.standing")
    budget = importlib.import_module("search.budget")
    promote = importlib.import_module("search.promote")
    confirm = importlib.import_module("workers.operations.confirm")
    repeated = importlib.import_module("profilers.fresh.repeated")
    presets = importlib.import_module("search.presets")
    effort = importlib.import_module("profilers.types").Effort.search()
    data = importlib.import_module("workers.operations.data")
    limits = importlib.import_module("compressors.export.limits")
    words = {3: "three", 5: "five", 6: "six", 2: "twice"}
    said = {
        "quickstart.md": [
            f"{splits['calibration']:.0%} for calibration, {splits['search']:.0%} for the search".replace("%", " %"),
            f"{splits['holdout']:.0%} held out".replace("%", " %"),
            f"at most {limits.ONE_FILE_BYTES / 2**30:.1f} GiB in float32",
        ],
        "reading-results.md": [
            f"±{standing.LARGEST_HALF_WIDTH:.0%}".replace("%", " %"),
            f"to {words[budget.FINALISTS]} points of the front ({words[budget.SHORT_FINALISTS]} in jobs of less",
        ],
        "how-it-works.md": [
            f"at most {data.CALIBRATION_EXAMPLES} calibration texts",
            f"at most {budget.LARGEST_RESERVE:.0%}, is kept".replace("%", " %"),
            f"least {budget.LEAST_SEARCH:.0%} of the budget".replace("%", " %"),
            f"above {words[1 + round(promote.GOAL_MARGIN)]} the drop",
            f"in {words[confirm.PROCESSES]} fresh processes",
            f"up to {words[confirm.PROCESSES + repeated.EXTRA_PROCESSES]} when",
            f"±{effort.half_width:.0%} during the search".replace("%", " %"),
            "{:.0%}, {:.0%}, {:.0%} and {:.0%}".format(*presets.FRACTIONS[1:]).replace("%", "").replace(" and", " and"),
        ],
    }
    for page, texts in said.items():
        found = " ".join((ROOT / "docs/guides" / page).read_text(encoding="utf-8").split())
        assert [text for text in texts if text not in found] == [], page
