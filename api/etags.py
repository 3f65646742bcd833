"""Strong ETags of JSON answers, and the conditions that clients attach to them (RFC 9110, section 13)."""

import hashlib
from collections.abc import Callable
from typing import Annotated

from fastapi import Header
from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from infra.errors import PreconditionFailedError

IfNoneMatch = Annotated[str | None, Header(description="ETags the client has; answered with 304 if nothing changed.")]
IfMatch = Annotated[str | None, Header(description="Do it only if the resource still has one of these ETags.")]


def etag_of(body: bytes) -> str:
    """Return the strong ETag of a representation: quoted, from its sha256."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def _candidates(header: str) -> set[str]:
    return {part.strip().removeprefix("W/") for part in header.split(",")}


def conditional(view: BaseModel, if_none_match: str | None) -> Response:
    """Answer with the view and its ETag, or with 304 if the client has it already."""
    body = view.model_dump_json().encode()
    return unless_known(etag_of(body), if_none_match, lambda: Response(body, media_type=JSONResponse.media_type))


def unless_known(etag: str, if_none_match: str | None, answer: Callable[[], Response]) -> Response:
    """Answer with what ``answer`` makes, or with 304 and without making it if the client has it already."""
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if if_none_match is not None and _candidates(if_none_match) & {etag, "*"}:
        return Response(status_code=304, headers=headers)
    response = answer()
    response.headers.update(headers)
    return response


def check_unchanged(view: BaseModel, if_match: str | None) -> None:
    """Check ``If-Match`` against the resource as it is now.

    Raises:
        PreconditionFailedError: The resource changed since the client read it.
    """
    if if_match is None or "*" in (tags := {part.strip() for part in if_match.split(",")}):
        return
    if etag_of(view.model_dump_json().encode()) not in tags:
        raise PreconditionFailedError(
            "The resource has changed since you read it.", hint="Read it again, then decide again."
        )
