"""Fixtures: a server that speaks S3 over HTTP, and a new bucket on it."""

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of an S3 server of the package moto, in a process of its own."""
    command = [sys.executable, "-u", "-m", "moto.server", "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if "Running on http" in line)
        yield line.split("Running on ")[1].split()[0]
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def s3_url(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """``s3://`` URL of a new bucket; the usual variables say where and with which credentials."""
    bucket = f"bucket-{uuid.uuid4().hex}"
    deadline = time.monotonic() + 10
    while httpx.put(f"{s3_server}/{bucket}", headers={"Authorization": _authorization()}).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for name, value in (_CREDENTIALS | {"AWS_ENDPOINT_URL": s3_server, "AWS_ALLOW_HTTP": "true"}).items():
        monkeypatch.setenv(name, value)
    assert "AWS_SESSION_TOKEN" not in os.environ
    return f"s3://{bucket}/prefix"


def _authorization() -> str:
    """The header by which the server tells which service is meant; it checks no signatures."""
    scope = "tests/20300101/us-east-1/s3/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"
