"""Read a dataset: JSONL, CSV or Parquet, with texts, optional second texts, optional labels."""

import csv
import json
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidDatasetError
from profilers.quality.labels import LabelReader

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Examples:
    """Texts in the order of the file.

    Attributes:
        texts: first texts.
        pairs: second texts of the same length, or ``None``.
        labels: class ids, int64 ``[examples]``, or ``None`` for unlabelled data.
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    labels: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: NDArray[np.int64]) -> "Examples":
        """Return the examples at these positions, in the given order."""
        return Examples(
            texts=tuple(self.texts[i] for i in indices),
            pairs=None if self.pairs is None else tuple(self.pairs[i] for i in indices),
            labels=None if self.labels is None else self.labels[indices],
        )


def read_examples(
    path: Path,
    *,
    format: str | None = None,  # noqa: A002 - the word that users know
    text_column: str = "text",
    second_text_column: str | None = None,
    label_column: str | None = None,
    labels: LabelReader | None = None,
    label_required: bool = True,
    unlabelled: int | None = None,
) -> Examples:
    """Read a file.

    Args:
        path: The file.
        format: ``jsonl``, ``csv`` or ``parquet``; by default what the file name ends with.
        text_column: Column of the (first) text.
        second_text_column: Column of the second text of a pair.
        label_column: Column of the label; ``None``: unlabelled.
        labels: Turns label values into the model's class ids; needed with ``label_column``.
        label_required: ``False``: a missing label column, or one without a single label, means unlabelled data.
        unlabelled: Class id of rows without a label (:meth:`LabelReader.missing`); ``None``: they are refused.

    Raises:
        InvalidDatasetError: The file is unreadable or empty, a column is missing, a text is not a text, or a label is
            outside of the model's range; rows are counted from 1, without a CSV header.
    """
    rows = list(_rows(path, (format or path.suffix.lstrip(".")).lower()))
    if not rows:
        raise InvalidDatasetError(f"The dataset {path.name} has no rows.", hint="Give at least a few hundred examples.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if label_column is not None and not label_required and label_column not in columns:
        label_column = None
    texts = _texts(rows, columns, text_column)
    pairs = _texts(rows, columns, second_text_column) if second_text_column else None
    ids = None
    if label_column is not None:
        reader = labels or LabelReader({})
        values = _label_values(rows, columns, label_column, reader, label_required, unlabelled)
        ids = None if values is None else _labels(values, label_column, reader, unlabelled)
    return Examples(tuple(texts), None if pairs is None else tuple(pairs), ids)


def read_columns(path: Path, format: str | None = None) -> list[str]:  # noqa: A002
    """Return the names of the columns, from the first row.

    Raises:
        InvalidDatasetError: The file is unreadable or empty.
    """
    first = next(_rows(path, (format or path.suffix.lstrip(".")).lower()), None)
    if first is None:
        raise InvalidDatasetError(f"The dataset {path.name} has no rows.", hint="Give at least a few hundred examples.")
    return list(first)


def _column(rows: Sequence[Row], columns: Sequence[str], name: str) -> Iterator[Any]:
    if name not in columns:
        raise InvalidDatasetError(
            f"The dataset has no column {name!r}; it has: {', '.join(map(repr, columns))}.",
            hint="Name the columns that hold the text and the label.",
            errors=[{"field": name, "message": "missing column"}],
        )
    for number, row in enumerate(rows, start=1):
        if name not in row:
            raise InvalidDatasetError(
                f"Row {number} has no value in the column {name!r}.", hint="Every row needs every column that is used."
            )
        yield row[name]


def _label_values(
    rows: Sequence[Row], columns: Sequence[str], name: str, reader: LabelReader, required: bool, unlabelled: int | None
) -> Sequence[Any] | None:
    """Return what each row says about its label; ``None`` where no row says anything and none has to."""
    if name not in columns:
        return list(_column(rows, columns, name))  # says which columns there are
    values = [row.get(name) for row in rows]
    missing = [number for number, value in enumerate(values, start=1) if reader.missing(value)]
    if unlabelled is not None or not missing:
        return values
    if len(missing) == len(rows) and not required:
        return None
    more = f", nor have {len(missing) - 1} others of {len(rows)}" if len(missing) > 1 else ""
    raise InvalidDatasetError(
        f"Row {missing[0]} has no label in the column {name!r} (it is {values[missing[0] - 1]!r}){more}.",
        hint="Data that models are judged on have a label in every row or in none: label these rows or take them out "
        "(as text for calibration or training they are welcome), or leave the whole column out to compare with the "
        "dense model instead.",
        errors=[{"field": name, "message": f"row {missing[0]}: no label"}],
    )


def _labels(values: Sequence[Any], name: str, reader: LabelReader, unlabelled: int | None) -> NDArray[np.int64]:
    ids = [
        unlabelled if unlabelled is not None and reader.missing(value) else reader.read(value, row, name)
        for row, value in enumerate(values, start=1)
    ]
    return np.array(ids, dtype=np.int64)


def _texts(rows: Sequence[Row], columns: Sequence[str], name: str) -> list[str]:
    texts = []
    for number, value in enumerate(_column(rows, columns, name), start=1):
        if not isinstance(value, str) or not value.strip():
            raise InvalidDatasetError(
                f"Row {number} has no text in the column {name!r} (it is {value!r}).",
                hint="Remove rows without text, or name another column.",
            )
        texts.append(value)
    return texts


def _rows(path: Path, kind: str) -> Iterator[Row]:
    readers = {"jsonl": _jsonl_rows, "ndjson": _jsonl_rows, "csv": _csv_rows, "parquet": _parquet_rows}
    if kind not in readers:
        raise InvalidDatasetError(
            f"The dataset format {kind or path.name!r} is not known.", hint="Use a .jsonl, .csv or .parquet file."
        )
    try:
        yield from readers[kind](path)
    except UnicodeDecodeError as error:
        raise InvalidDatasetError(
            f"The dataset {path.name} is not UTF-8 text: {error}.", hint="Save it as UTF-8."
        ) from error
    except OSError as error:
        raise InvalidDatasetError(
            f"The dataset {path.name} cannot be read: {error}.", hint="Upload the file again."
        ) from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise InvalidDatasetError(
                    f"Line {number} of {path.name} is not JSON: {error}.", hint="Write one JSON object on each line."
                ) from error
            if not isinstance(row, dict):
                raise InvalidDatasetError(
                    f"Line {number} of {path.name} is not a JSON object.", hint="Write one JSON object on each line."
                )
            yield row


def _csv_rows(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for row in reader:
                yield {key: value for key, value in row.items() if key is not None}
        except csv.Error as error:
            raise InvalidDatasetError(
                f"Line {reader.line_num} of {path.name} is not CSV: {error}.", hint="Quote texts that contain commas."
            ) from error


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise InvalidDatasetError(
            f"The dataset {path.name} is not a Parquet file: {error}.", hint="Write it again with pyarrow or pandas."
        ) from error
