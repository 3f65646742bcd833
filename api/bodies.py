"""Receive a raw request body into a file, hashing and counting as it comes."""

import hashlib
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from typing import Any

from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from infra.errors import InvalidInputError
from infra.errors import TooLargeError
from infra.errors import UnavailableError

_BUFFER_BYTES = 1 << 20

RAW_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The bytes of the file.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
"""What the OpenAPI document says of such a body."""


@dataclass(frozen=True)
class ReceivedBody:
    """A complete body in a temporary file that is removed after the request."""

    path: Path
    size: int
    sha256: str


@asynccontextmanager
async def receive_body(request: Request, directory: Path, limit: int) -> AsyncIterator[ReceivedBody]:
    """Receive the body of ``request``.

    Args:
        request: Its body must not have been read.
        directory: Where to put the temporary file.
        limit: Largest number of bytes.

    Raises:
        TooLargeError: The body is or announces to be larger than ``limit``.
        InvalidInputError: The body is compressed, or the client went away.
        UnavailableError: The disk is full.
    """
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InvalidInputError("The body is compressed.", hint="Send the file as it is, without Content-Encoding.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise _too_large(limit)
    with tempfile.NamedTemporaryFile(dir=directory, prefix="body-") as file:
        yield await _receive(request, file.file, Path(file.name), limit)


def _too_large(limit: int) -> TooLargeError:
    return TooLargeError(f"The file is larger than {limit} bytes.", hint="Check that it is the right file.")


async def _receive(request: Request, file: IO[bytes], path: Path, limit: int) -> ReceivedBody:
    digest = hashlib.sha256()
    size = 0
    buffer = bytearray()

    def write() -> None:
        digest.update(buffer)
        file.write(buffer)
        file.flush()
        buffer.clear()

    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            buffer += chunk
            if len(buffer) >= _BUFFER_BYTES:
                await to_thread.run_sync(write)
        write()
    except ClientDisconnect:
        raise InvalidInputError("The body ended early.", hint="Send it again.") from None
    except OSError as error:
        raise UnavailableError(
            f"The file cannot be stored: {error.strerror}.", hint="Free some disk space on the server, then try again."
        ) from error
    return ReceivedBody(path, size, digest.hexdigest())
