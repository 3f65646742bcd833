"""Read examples from JSONL, CSV or Parquet."""

import csv
import json
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import InvalidDatasetError

Row = dict[str, Any]


@dataclass(frozen=True)
class Examples:
    """Texts with optional second texts and optional labels, all of the same length."""

    texts: list[str]
    second_texts: list[str] | None = None
    labels: list[int] | None = None
    """Index of the model's output class."""

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: Sequence[int]) -> "Examples":
        """Return the examples at ``indices``, in that order."""

        def pick(values: list[Any] | None) -> list[Any] | None:
            return None if values is None else [values[index] for index in indices]

        return Examples([self.texts[index] for index in indices], pick(self.second_texts), pick(self.labels))


def read_examples(
    path: Path,
    format_: str,
    *,
    text_column: str,
    second_text_column: str | None = None,
    label_column: str | None = None,
    label_required: bool = False,
    classes: Sequence[str] = (),
) -> Examples:
    """Read a dataset.

    Args:
        path: The file.
        format_: ``jsonl`` | ``csv`` | ``parquet``.
        text_column: Column with the text.
        second_text_column: Column with the second text of a pair.
        label_column: Column with labels; ignored where it does not exist, unless ``label_required``.
        label_required: Whether a missing label column is an error.
        classes: The model's class names in output order. A label is one of them, or an index.

    Raises:
        InvalidDatasetError: The file cannot be read, lacks a column, is empty, or has labels unknown to the model.
    """
    rows = list(_rows(path, format_))
    if not rows:
        raise InvalidDatasetError("The dataset has no rows.", hint="Give at least a few hundred examples.")
    columns = list(rows[0])
    for name in (text_column, second_text_column, label_column if label_required else None):
        if name is not None and name not in columns:
            raise InvalidDatasetError(
                f"The dataset has no column {name!r}.", hint=f"Its columns are {', '.join(map(repr, columns))}."
            )
    labels = None
    if label_column is not None and label_column in columns and classes:
        labels = [_label(row.get(label_column), classes, number) for number, row in enumerate(rows, start=1)]
    second = None
    if second_text_column is not None:
        second = [_text(row.get(second_text_column), second_text_column, n) for n, row in enumerate(rows, start=1)]
    texts = [_text(row.get(text_column), text_column, number) for number, row in enumerate(rows, start=1)]
    return Examples(texts, second, labels)


def _rows(path: Path, format_: str) -> Iterator[Row]:
    readers = {"jsonl": _jsonl, "csv": _csv, "parquet": _parquet}
    if format_ not in readers:
        raise InvalidDatasetError(
            f"Datasets of the format {format_!r} cannot be read.", hint="Use jsonl, csv or parquet."
        )
    try:
        yield from readers[format_](path)
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise InvalidDatasetError(f"The dataset cannot be read: {error}.", hint="Save it as UTF-8 text.") from error


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidDatasetError(
                    f"Line {number} of the dataset is not JSON: {error}.", hint="Each line must be one JSON object."
                ) from error
            if not isinstance(row, dict):
                raise InvalidDatasetError(f"Line {number} is not a JSON object.", hint='Write {"text": ...} lines.')
            yield row


def _csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        yield from csv.DictReader(file)


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise InvalidDatasetError(f"The Parquet file is damaged: {error}.", hint="Write it again.") from error


def _text(value: Any, column: str, number: int) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidDatasetError(
            f"Row {number} has no text in the column {column!r}.", hint="Remove empty rows, or choose another column."
        )
    return value


def _label(value: Any, classes: Sequence[str], number: int) -> int:
    """Return the class index of a label: a name first, then an integer."""
    if isinstance(value, str) and value in classes:
        return list(classes).index(value)
    try:
        index = int(value)
    except (TypeError, ValueError):
        index = -1
    if isinstance(value, float) and value != index:
        index = -1
    if not 0 <= index < len(classes):
        raise InvalidDatasetError(
            f"Row {number} has the label {value!r}, which the model does not know.",
            hint=f"Labels are 0 to {len(classes) - 1}, or {', '.join(classes)}.",
        )
    return index
