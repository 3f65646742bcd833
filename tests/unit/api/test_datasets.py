"""Datasets: formats, columns, refusals."""

import io

import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

from tests.unit.api.conftest import submit
from tests.unit.api.conftest import upload_dataset


def parquet() -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["a", "b", "c"], "label": [0, 1, 0]}), stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "columns", "rows"),
    [
        ("a.jsonl", b'{"text": "x", "label": 1}\n\n{"label": 0, "text": "y", "note": "z"}\n', ["text", "label"], 2),
        ("a.csv", '\ufefftext,label\n"x, y\nz",1\nq,0\n'.encode(), ["text", "label"], 2),
        ("a.parquet", parquet(), ["text", "label"], 3),
    ],
)
def test_columns_and_rows_are_read(
    client: TestClient, name: str, content: bytes, columns: list[str], rows: int
) -> None:
    dataset = upload_dataset(client, content, name)
    assert (dataset["columns"], dataset["rows"], dataset["size"]) == (columns, rows, len(content))
    assert client.get(f"/v1/datasets/{dataset['id']}").json() == dataset


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b"", "no rows"),
        ("a.jsonl", b'{"text": "x"}\nnot json\n', "Line 2"),
        ("a.jsonl", b'["x"]\n', "Line 1 holds a list"),
        ("a.jsonl", b'{"text": "x"}\n{"words": "y"}\n', "no column in common"),
        ("a.jsonl", b'{"text": "\xff"}\n', "not UTF-8"),
        ("a.jsonl", b"[" * 100_000, "Line 1 is not JSON"),
        ("a.csv", b"text,label\nx\n", "Line 2 has 1 fields"),
        ("a.csv", b"text,text\nx,y\n", "names a column twice"),
        ("a.csv", b'text\n"open', "not CSV"),
        ("a.csv", b"text,label\n", "no rows"),
        ("a.parquet", b"PAR1" + b"\0" * 64 + b"PAR1", "cannot be read"),
        ("a.parquet", parquet()[:-20], "cannot be read"),
        ("a.parquet", b"text,label\n", "not a Parquet file"),
        ("a.jsonl", b"\x80\x04\x95\x10\x00\x00\x00", "a pickle"),
        ("a.csv", b"PK\x03\x04rest", "zip"),
        ("a.txt", b"x", "cannot be told"),
    ],
)
def test_unusable_files_are_refused_with_the_reason(client: TestClient, name: str, content: bytes, reason: str) -> None:
    answer = client.post("/v1/datasets", params={"name": name}, content=content)
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]
    assert answer.json()["hint"]
    assert client.get("/v1/datasets").json()["items"] == []


def test_the_format_can_be_said_explicitly(client: TestClient) -> None:
    answer = client.post("/v1/datasets", params={"name": "export.dat", "format": "csv"}, content=b"text\nx\n")
    assert answer.status_code == 201
    assert answer.json()["format"] == "csv"


def test_repeating_a_post_with_the_same_key_creates_once(client: TestClient) -> None:
    headers = {"Idempotency-Key": "one"}
    first = client.post("/v1/datasets", params={"name": "a.csv"}, content=b"text\nx\n", headers=headers)
    again = client.post("/v1/datasets", params={"name": "a.csv"}, content=b"text\nx\n", headers=headers)
    assert again.status_code == 201
    assert again.json() == first.json()
    assert again.headers["idempotent-replay"] == "true"
    assert again.headers["location"] == first.headers["location"]
    other = client.post("/v1/datasets", params={"name": "a.csv"}, content=b"text\ny\n", headers=headers)
    assert other.status_code == 422
    assert len(client.get("/v1/datasets").json()["items"]) == 1


@pytest.mark.parametrize("role", ["dataset_id", "calibration_id", "train_id"])
def test_a_dataset_that_a_job_uses_cannot_be_deleted(client: TestClient, role: str) -> None:
    used, unused = upload_dataset(client)["id"], upload_dataset(client)["id"]
    submit(client, **{role: used, "recover": {"seconds": 60}})
    answer = client.delete(f"/v1/datasets/{used}")
    assert answer.status_code == 409
    assert used in answer.json()["detail"]
    assert client.delete(f"/v1/datasets/{unused}").status_code == 204
