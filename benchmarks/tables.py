"""Plain-text tables."""

from collections.abc import Mapping
from collections.abc import Sequence


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows of equal keys as a table with aligned columns; the first column is left-aligned."""
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    lines = [dict.fromkeys(names, ""), *rows]
    lines[0] = {name: name for name in names}
    for line in lines:
        first, *others = names
        print("  ".join([line[first].ljust(widths[first]), *(line[name].rjust(widths[name]) for name in others)]))
