import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidDatasetError
from profilers.quality.examples import Examples
from profilers.quality.examples import read_columns
from profilers.quality.examples import read_examples
from profilers.quality.labels import LabelReader
from profilers.quality.splits import split
from profilers.quality.splits import text_keys
from profilers.quality.splits import without_overlap

ROWS = [
    {"text": 'a "quoted", text', "other": "b\nc", "label": 0},
    {"text": "déjà vu", "other": "x", "label": 1},
    {"text": "  blanks stay ", "other": "y", "label": 1},
]
LABELS = LabelReader({"0": "NEGATIVE", "1": "POSITIVE"})


def write(tmp_path, kind, rows=ROWS):
    path = tmp_path / f"data.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        import csv

        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_every_format_gives_the_same_examples(tmp_path, kind):
    path = write(tmp_path, kind)
    examples = read_examples(path, second_text_column="other", label_column="label", labels=LABELS)
    assert examples.texts == tuple(row["text"] for row in ROWS)
    assert examples.pairs == tuple(row["other"] for row in ROWS)
    assert examples.labels.tolist() == [0, 1, 1]
    assert read_columns(path) == ["text", "other", "label"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_missing_column_is_named_with_those_that_exist(tmp_path, kind):
    with pytest.raises(InvalidDatasetError, match=r"'sentence'.*'text', 'other', 'label'"):
        read_examples(write(tmp_path, kind), text_column="sentence")


def test_an_optional_label_column_may_be_missing(tmp_path):
    path = write(tmp_path, "jsonl")
    assert read_examples(path, label_column="class", labels=LABELS, label_required=False).labels is None
    with pytest.raises(InvalidDatasetError, match="'class'"):
        read_examples(path, label_column="class", labels=LABELS)


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1), ("1", 1), (1.0, 1), (True, 1), ("POSITIVE", 1), ("positive ", 1), ("NEGATIVE", 0)]
)
def test_labels_are_names_or_ids(value, expected):
    assert LABELS.read(value, 1, "label") == expected


@pytest.mark.parametrize("value", [2, -1, "2", 0.5, "neutral", None, [1], "", float("nan")])
def test_labels_outside_of_the_model_name_row_and_value(value):
    with pytest.raises(InvalidDatasetError, match="Row 7") as caught:
        LABELS.read(value, 7, "label")
    assert repr(value) in caught.value.message
    assert "POSITIVE" in caught.value.hint


def test_names_that_look_like_numbers_win_over_ids():
    stars = LabelReader({0: "1", 1: "2", 2: "3"})
    assert stars.read("1", 1, "label") == 0
    assert stars.read(1, 1, "label") == 1


def test_names_that_differ_in_case_only_are_told_apart():
    genes = LabelReader({0: "Abc", 1: "ABC"})
    assert genes.read("ABC", 1, "label") == 1
    with pytest.raises(InvalidDatasetError):
        genes.read("abc", 1, "label")


@pytest.mark.parametrize(
    ("config", "classes"),
    [({"id2label": {"0": "a", "1": "b", "2": "c"}}, 3), ({"num_labels": 4}, 4), ({"model_type": "bert"}, 2)],
)
def test_classes_come_from_the_config(config, classes):
    reader = LabelReader.from_config(config)
    assert reader.read(classes - 1, 1, "label") == classes - 1
    with pytest.raises(InvalidDatasetError):
        reader.read(classes, 1, "label")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"text": "a"}\n{"text": \n', "Line 2"),
        ("list.jsonl", b'["a"]\n', "not a JSON object"),
        ("null.jsonl", b'{"text": "a"}\n{"text": null}\n', "Row 2 has no text"),
        ("number.jsonl", b'{"text": 5}\n', "Row 1 has no text"),
        ("hole.jsonl", b'{"text": "a"}\n{"txt": "b"}\n', "Row 2 has no value"),
        ("latin.csv", "text\ncaf\u00e9\n".encode("latin-1"), "not UTF-8"),
        ("quote.csv", b'text\n"open\n', "not CSV"),
        ("short.csv", b"text,label\na\n", "Row 1 has no label"),
        ("empty.jsonl", b"", "no rows"),
        ("header.csv", b"text,label\n", "no rows"),
        ("bad.parquet", b"PAR1 nonsense PAR1", "not a Parquet"),
        ("data.xlsx", b"", "format"),
    ],
)
def test_broken_files_say_what_is_wrong(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidDatasetError, match=message):
        read_examples(path, label_column="label" if name == "short.csv" else None)


def test_rows_without_a_label_among_others_are_named_and_the_way_out_is_told(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f'{{"text": "a", "label": {label}}}\n' for label in (0, -1, 1, "null")))
    for required in (True, False):
        with pytest.raises(
            InvalidDatasetError, match=r"Row 2 has no label .*it is -1.*, nor have 1 others of 4"
        ) as found:
            read_examples(path, label_column="label", labels=LABELS, label_required=required)
    assert "in every row or in none" in found.value.hint
    path.write_text('{"text": "a", "label": 0}\n{"text": "b"}\n')
    with pytest.raises(InvalidDatasetError, match="Row 2 has no label"):
        read_examples(path, label_column="label", labels=LABELS)
    assert read_examples(path, label_column="label", labels=LABELS, unlabelled=-100).labels.tolist() == [0, -100]


def test_a_column_without_a_single_label_is_as_good_as_none(tmp_path):
    path = tmp_path / "test.csv"
    path.write_text("text,label\na,-1\nb,\n")
    assert read_examples(path, label_column="label", labels=LABELS, label_required=False).labels is None
    with pytest.raises(InvalidDatasetError, match="Row 1 has no label"):
        read_examples(path, label_column="label", labels=LABELS)


def test_select_keeps_rows_together():
    examples = Examples(("a", "b", "c"), ("x", "y", "z"), np.array([0, 1, 2]))
    chosen = examples.select(np.array([2, 0]))
    assert (chosen.texts, chosen.pairs, chosen.labels.tolist()) == (("c", "a"), ("z", "x"), [2, 0])


TEXTS = st.lists(st.text(alphabet="abAB ", min_size=1, max_size=4), min_size=1, max_size=60)


@given(TEXTS, st.booleans(), st.integers(0, 3))
def test_splits_are_disjoint_by_text_and_complete(texts, separate, seed):
    examples = Examples(tuple(texts))
    keys = np.array(text_keys(examples))
    parts_wanted = 2 if separate else 3
    if len(set(keys)) < 2 * parts_wanted:
        with pytest.raises(InvalidDatasetError):
            split(examples, separate_calibration=separate, seed=seed)
        return
    parts = split(examples, separate_calibration=separate, seed=seed)
    groups = [parts.calibration, parts.search, parts.holdout]
    together = np.concatenate(groups)
    assert sorted(together) == list(range(len(texts)))
    sides = [set(keys[group]) for group in groups]
    assert not sides[0] & sides[1]
    assert not sides[0] & sides[2]
    assert not sides[1] & sides[2]
    assert (len(parts.calibration) == 0) is separate
    assert min(len(side) for side in sides[separate:]) >= 2


def test_splits_do_not_depend_on_the_order_of_rows():
    texts = [f"text {i}" for i in range(100)]
    first = split(Examples(tuple(texts)), separate_calibration=False)
    second = split(Examples(tuple(reversed(texts))), separate_calibration=False)
    assert {texts[i] for i in first.holdout} == {texts[99 - i] for i in second.holdout}
    other = split(Examples(tuple(texts)), separate_calibration=False, seed=1)
    assert set(first.holdout) != set(other.holdout)
    assert len(first.calibration) == 25
    assert len(first.search) == 40


def test_calibration_texts_that_are_evaluated_are_left_out():
    calibration = Examples(("new", "Seen  before", "new", "also new"))
    kept = without_overlap(calibration, Examples(("seen before", "x")))
    assert kept.tolist() == [0, 3]
