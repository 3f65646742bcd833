"""Reads the Markdown of the documentation."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
WRITTEN_HERE = sorted([*(ROOT / "docs" / "guides").glob("*.md"), *(ROOT / "docs" / "reference").glob("*.md")])

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fence:
    """A fenced block."""

    page: Path
    language: str
    text: str

    @property
    def name(self) -> str:
        """For test ids: where the block begins."""
        line = self.page.read_text(encoding="utf-8").split(self.text, 1)[0].count("\n")
        return f"{self.page.name}:{line}"


def name_of(page: Path) -> str:
    """For test ids."""
    return str(page.relative_to(ROOT))


def fences(language: str, pages: list[Path] = PAGES) -> list[Fence]:
    """All blocks of one language."""
    return [
        Fence(page, found[1], found[2])
        for page in pages
        for found in _FENCE.finditer(page.read_text(encoding="utf-8"))
        if found[1] == language
    ]


def prose(page: Path) -> str:
    """The page without fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def command_lines(text: str) -> Iterator[str]:
    """The ``paretune ...`` commands of a shell text or of inline code, cut where the shell would end them."""
    for line in text.replace("\\\n", " ").splitlines():
        for found in re.finditer(r"(?:^|[\s(`/])paretune(?= [a-z])([^|)#;`>]*)", line):
            yield found[1].strip()


def anchors(page: Path) -> set[str]:
    """What links into a page may name, as GitHub builds it from headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower().replace(" ", "-") for heading in headings}
