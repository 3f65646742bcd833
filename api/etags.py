"""ETags of JSON answers, and the conditions that clients attach to them (RFC 9110, section 13)."""

import hashlib
from collections.abc import Callable
from typing import Annotated

from fastapi import Header
from fastapi import Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from api.version import VERSION
from infra.errors import PreconditionFailedError

IfNoneMatch = Annotated[str | None, Header(description="ETags the client has; answered with 304 if nothing changed.")]
IfMatch = Annotated[str | None, Header(description="Do it only if the resource still has one of these ETags.")]


def etag_of(body: bytes) -> str:
    """Return the strong ETag of a representation: quoted, from its sha256."""
    return f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def etag_of_state(*state: object) -> str:
    """Return the weak ETag of an answer that also tells the time: the same as long as ``state`` is the same.

    Args:
        state: Plain values that change whenever anything but the time does.
    """
    return f"W/{etag_of(repr((VERSION, *state)).encode())}"


def etag_of_view(view: BaseModel) -> str:
    """Return the strong ETag of a view."""
    return etag_of(view.model_dump_json().encode())


def _candidates(header: str) -> set[str]:
    return {part.strip().removeprefix("W/") for part in header.split(",")}


def _is_among(etag: str, header: str) -> bool:
    return bool(_candidates(header) & {etag.removeprefix("W/"), "*"})


def json_answer(view: BaseModel) -> Response:
    """Answer with a view."""
    return Response(view.model_dump_json(), media_type=JSONResponse.media_type)


def conditional(view: BaseModel, if_none_match: str | None) -> Response:
    """Answer with the view and its ETag, or with 304 if the client has it already."""
    return unless_known(etag_of_view(view), if_none_match, lambda: json_answer(view))


def unless_known(etag: str, if_none_match: str | None, answer: Callable[[], Response]) -> Response:
    """Answer with what ``answer`` makes, or with 304 and without making it if the client has it already."""
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if if_none_match is not None and _is_among(etag, if_none_match):
        return Response(status_code=304, headers=headers)
    response = answer()
    response.headers.update(headers)
    return response


def check_unchanged(etag: str, if_match: str | None) -> None:
    """Check ``If-Match`` against the ETag of the resource as it is now.

    A weak one is taken as well: it stands for everything of the resource but the time.

    Raises:
        PreconditionFailedError: The resource changed since the client read it.
    """
    if if_match is not None and not _is_among(etag, if_match):
        raise PreconditionFailedError(
            "The resource has changed since you read it.", hint="Read it again, then decide again."
        )
