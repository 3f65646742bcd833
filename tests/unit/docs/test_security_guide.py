"""The table of threats: every line has a defence and tests that there are."""

import ast
import re

from tests.unit.docs.documents import ROOT

GUIDE = ROOT / "docs/guides/security.md"


def test_every_threat_has_a_defence_and_tests_that_exist() -> None:
    table = GUIDE.read_text(encoding="utf-8").partition("## Threats")[2].partition("\n## ")[0]
    rows = [line.strip("|").split("|") for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 30
    for threat, defence, tests in rows:
        assert defence.strip(), threat
        named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", tests)
        assert named, threat
        for path, name in named:
            functions = {
                node.name
                for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8")))
                if isinstance(node, ast.FunctionDef)
            }
            assert name in functions, (threat, name)
