"""What happens to every request before an endpoint sees it: an id, the Host check, the size limit, safe headers."""

import re
import uuid
from collections.abc import Iterable

from fastapi import Request
from starlette.datastructures import Headers
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp
from starlette.types import Message
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

from api.problems import error_response
from infra.errors import ForbiddenError
from infra.errors import TooLargeError
from infra.log import log_context

_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_JOB = re.compile(r"/v1/jobs/([A-Za-z0-9-]{1,100})(?:/|$)")
_RAW_BODIES = (
    re.compile(r"PUT /v1/models/[^/]+/files/.+"),
    re.compile(r"POST /v1/datasets"),
    re.compile(r"PATCH /v1/uploads/[^/]+"),
)
"""Requests whose body is a file: received piece by piece, with their own limit (:mod:`api.bodies`)."""

_SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
"""Of every answer that does not say otherwise; pages for people have a policy of their own."""


class RequestIdMiddleware:
    """Gives every request an id (the client's ``X-Request-ID`` if it is a plain word) and every answer safe headers."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = identifier
        job = _JOB.match(scope["path"])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = identifier
                for name, value in _SAFE_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with log_context(request_id=identifier, job_id=job[1] if job else None):
            await self.app(scope, receive, send_with_headers)


class HostMiddleware:
    """Refuses requests for another host name: a web page cannot reach a local service by DNS rebinding."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str]) -> None:
        self.app = app
        self.allowed = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] == "http" and "*" not in self.allowed:
            host = re.sub(r":\d+$", "", Headers(scope=scope).get("host", "").lower())
            if host not in self.allowed:
                error = ForbiddenError(
                    f"This service does not answer to the host name {host[:100]!r}.",
                    hint="Use one of its own names, or add this one to PARETUNE_ALLOWED_HOSTS.",
                )
                await error_response(Request(scope), error)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyLimitMiddleware:
    """Refuses large bodies, except where a body is a file.

    FastAPI's own ``max_body_size`` answers in plain text; here the answer is a problem like every other.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http" or any(p.fullmatch(f"{scope['method']} {scope['path']}") for p in _RAW_BODIES):
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        received = 0
        error = TooLargeError(
            f"The body is larger than {self.limit} bytes.",
            hint="Send files through /v1/models, /v1/datasets or /v1/uploads.",
        )
        if length.isdecimal() and int(length[:20]) > self.limit:
            await error_response(Request(scope), error)(scope, receive, send)
            return

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                # FastAPI turns every other exception that comes out of reading a body into 400.
                raise HTTPException(status_code=error.status) from error
            return message

        await self.app(scope, receive_counted, send)
