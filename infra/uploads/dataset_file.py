"""Columns and row count of an uploaded dataset, checked row by row."""

import csv
import json
import subprocess
import sys
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import BinaryIO
from typing import Literal

from infra.errors import InvalidDatasetError
from infra.uploads.magic import foreign_format

DatasetFormat = Literal["jsonl", "csv", "parquet"]

MAX_ROWS = 10_000_000
MAX_COLUMNS = 1000
MAX_LINE_BYTES = 16 << 20
PARQUET_SECONDS = 60

csv.field_size_limit(MAX_LINE_BYTES)  # the module's own limit is 128 KiB, too little for documents

_SUFFIXES: dict[str, DatasetFormat] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}


@dataclass(frozen=True)
class DatasetFacts:
    """What a dataset holds.

    Attributes:
        columns: Names that every row has, in the order of the first row.
        rows: Number of rows.
    """

    columns: tuple[str, ...]
    rows: int


def format_of(name: str) -> DatasetFormat:
    """Return the format that the file name stands for.

    Raises:
        InvalidDatasetError: The suffix is none of the known ones.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in _SUFFIXES:
        raise InvalidDatasetError(
            f"The format of {name[:100]!r} cannot be told from its name.",
            hint="Name it .jsonl, .csv or .parquet, or say the format explicitly.",
        )
    return _SUFFIXES[suffix]


def read_facts(path: Path, data_format: DatasetFormat) -> DatasetFacts:
    """Read the whole file once.

    Args:
        path: A file on this host; it is only read.
        data_format: How to read it.

    Raises:
        InvalidDatasetError: The file is empty, damaged, not of this format, or has rows without a common column.
    """
    with path.open("rb") as stream:
        head = stream.read(512)
        words = None if head.startswith(b"#!") else foreign_format(head)
        if words:
            raise InvalidDatasetError(f"The dataset is {words}.", hint="Send JSONL, CSV or Parquet, uncompressed.")
        stream.seek(0)
        if data_format == "jsonl":
            facts = _read_jsonl(stream)
        elif data_format == "csv":
            facts = _read_csv(stream)
        else:
            facts = _read_parquet(path, head)
    if facts.rows == 0:
        raise InvalidDatasetError("The dataset has no rows.", hint="Send at least some tens of examples.")
    if not facts.columns:
        raise InvalidDatasetError("The rows have no column in common.", hint="Give every row the text column.")
    return facts


def _check_columns(columns: list[str], where: str) -> None:
    if len(columns) > MAX_COLUMNS:
        raise InvalidDatasetError(f"{where} has {len(columns)} columns; at most {MAX_COLUMNS}.", hint="Drop some.")
    for column in columns:
        if not column or len(column) > 200 or not column.isprintable():
            raise InvalidDatasetError(f"{where} has an unusable column name {column[:80]!r}.", hint="Rename it.")
    if len(set(columns)) < len(columns):
        raise InvalidDatasetError(f"{where} names a column twice.", hint="Give every column its own name.")


def _read_jsonl(stream: BinaryIO) -> DatasetFacts:
    columns: list[str] = []
    rows = number = 0
    while line := stream.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InvalidDatasetError(f"Line {number} is longer than {MAX_LINE_BYTES} bytes.", hint="Is it JSONL?")
        if not line.strip():
            continue
        row = _parse_line(number, line)
        if rows == 0:
            columns = list(row)
            _check_columns(columns, f"Line {number}")
        elif row.keys() != set(columns):
            columns = [column for column in columns if column in row]
        rows += 1
        if rows > MAX_ROWS:
            raise InvalidDatasetError(f"The dataset has more than {MAX_ROWS} rows.", hint="Send a sample of it.")
    return DatasetFacts(tuple(columns), rows)


def _parse_line(number: int, line: bytes) -> dict[str, object]:
    hint = 'Every line is one JSON object, such as {"text": "...", "label": 0}.'
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise InvalidDatasetError(f"Line {number} is not UTF-8 text.", hint="Save the file as UTF-8.") from None
    except (ValueError, RecursionError) as problem:
        raise InvalidDatasetError(f"Line {number} is not JSON: {problem}.", hint=hint) from None
    if not isinstance(row, dict):
        raise InvalidDatasetError(f"Line {number} holds a {type(row).__name__}, not an object.", hint=hint)
    return row


def _read_csv(stream: BinaryIO) -> DatasetFacts:
    hint = "The first line names the columns; quote fields that hold commas or line breaks."
    text = TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        reader = csv.reader(text, strict=True)
        columns = next(reader, [])
        _check_columns(columns, "The header")
        rows = 0
        for row in islice(reader, MAX_ROWS + 1):
            if not row:
                continue
            if len(row) != len(columns):
                raise InvalidDatasetError(
                    f"Line {reader.line_num} has {len(row)} fields; the header names {len(columns)}.", hint=hint
                )
            rows += 1
    except UnicodeDecodeError:
        raise InvalidDatasetError("The dataset is not UTF-8 text.", hint="Save the file as UTF-8.") from None
    except csv.Error as problem:
        raise InvalidDatasetError(f"The dataset is not CSV: {problem}.", hint=hint) from None
    finally:
        text.detach()
    if rows > MAX_ROWS:
        raise InvalidDatasetError(f"The dataset has more than {MAX_ROWS} rows.", hint="Send a sample of it.")
    return DatasetFacts(tuple(columns), rows)


def _read_parquet(path: Path, head: bytes) -> DatasetFacts:
    """Read the schema in a process of its own: the decoder is native code and the file is a stranger's."""
    hint = "Write it with pandas: frame.to_parquet(file)."
    if not head.startswith(b"PAR1"):
        raise InvalidDatasetError("The dataset is not a Parquet file.", hint=hint)
    command = [sys.executable, "-I", str(Path(__file__).with_name("parquet_reader.py")), str(path.resolve())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PARQUET_SECONDS, check=False, env={})
    except subprocess.TimeoutExpired:
        raise InvalidDatasetError("Reading the Parquet file took too long.", hint=hint) from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1][:200] if lines and done.returncode > 0 else "the reader crashed"
        raise InvalidDatasetError(f"The Parquet file cannot be read: {reason}.", hint=hint)
    answer = json.loads(done.stdout)
    columns, rows = list(answer["columns"]), int(answer["rows"])
    _check_columns(columns, "The dataset")
    if rows > MAX_ROWS:
        raise InvalidDatasetError(f"The dataset has more than {MAX_ROWS} rows.", hint="Send a sample of it.")
    return DatasetFacts(tuple(columns), rows)
