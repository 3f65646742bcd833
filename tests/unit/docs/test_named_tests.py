"""Tables that say which tests show what: every line names tests that there are."""

import ast
import re

from tests.unit.docs.documents import ROOT


def _rows(page: str, heading: str) -> list[list[str]]:
    """Cells of the table below a heading, without its first line."""
    text = (ROOT / "docs/guides" / page).read_text(encoding="utf-8")
    table = text.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    return [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]


def _check_tests_exist(cell: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cell)
    assert named, cell
    for path, name in named:
        functions = {
            node.name
            for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef)
        }
        assert name in functions, (path, name)


def test_every_threat_has_a_defence_and_tests_that_exist() -> None:
    rows = _rows("security.md", "## Threats")
    assert len(rows) > 30
    for threat, defence, tests in rows:
        assert defence.strip(), threat
        _check_tests_exist(tests)


def test_every_property_of_the_methods_has_tests_that_exist() -> None:
    rows = _rows("methods.md", "## What is proven where")
    assert len(rows) > 10
    for _property, tests in rows:
        _check_tests_exist(tests)
