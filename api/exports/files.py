"""Send a blob of the artifact store: verified, in ranges, ETag = sha256, always as an attachment."""

import base64
import mimetypes
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

from fastapi import Request
from fastapi import Response
from fastapi.responses import StreamingResponse

from api.services import Services
from infra.store.verified import read_verified
from infra.store.verified import verify_local

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_CHUNK_BYTES = 1 << 20


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return (start, end) of a single range, end exclusive; ``None`` if the header is to be ignored (RFC 9110, 14.2).

    Raises:
        ValueError: The range is well formed and lies outside of the file.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[1] == match[2] == "":
        return None  # several ranges, or none: the whole file is a valid answer
    if match[1] == "":
        if int(match[2]) == 0:
            raise ValueError("empty range")
        return max(0, size - int(match[2])), size
    start = int(match[1])
    end = min(int(match[2]) + 1, size) if match[2] else size
    if match[2] and int(match[2]) < start:
        return None
    if start >= size:
        raise ValueError("range outside of the file")
    return start, end


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk


def send_blob(request: Request, services: Services, *, name: str, sha256: str, size: int) -> Response:
    """Answer with a blob, the requested range of it, 304 or 416."""
    etag = f'"{sha256}"'
    file_name = PurePosixPath(name).name
    media_type = mimetypes.guess_type(file_name)[0] or "application/octet-stream"
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file_name)}",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-cache",
    }
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
    if known & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    span: tuple[int, int] | None = None
    wanted = request.headers.get("range")
    if wanted and request.headers.get("if-range", etag) == etag:
        try:
            span = parse_range(wanted, size)
        except ValueError:
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
    start, end = span or (0, size)
    headers["Content-Length"] = str(end - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    if request.method == "HEAD":
        return Response(status_code=206 if span else 200, headers=headers, media_type=media_type)
    if span is None:
        pieces = read_verified(services.store.open(sha256), sha256)
        first = next(pieces, b"")  # a small file is verified before the answer begins
        return StreamingResponse(chain([first], pieces), 200, headers, media_type)
    verify_local(services.store, sha256)
    stream = services.store.open(sha256, start=start, length=end - start)
    return StreamingResponse(_chunks(stream), 206, headers, media_type)
