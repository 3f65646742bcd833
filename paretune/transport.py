"""HTTP with the habits that the service wants: keys, repeats that are safe, errors as :class:`ApiError`."""

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from paretune.errors import ApiError

ATTEMPTS = 5
_FIRST_DELAY_SECONDS = 0.3
LONG_WORK_SECONDS = 3600.0
"""An end all the same: a connection can die without a sign, and then the request is repeated."""
_TRY_AGAIN = frozenset({429, 502, 503, 504})
_SAFE = frozenset({"GET", "HEAD", "PUT", "DELETE"})
_READ_SECONDS = 60.0

JsonObject = dict[str, Any]


def _timeout(read_seconds: float = _READ_SECONDS) -> httpx.Timeout:
    return httpx.Timeout(60.0, connect=5.0, read=read_seconds, write=120.0)


class Transport:
    """One connection pool to one service.

    Args:
        url: Base URL.
        api_key: ``prefix.secret``.
        transport: Replaces the network, such as ``httpx.ASGITransport`` in tests.
    """

    def __init__(self, url: str, api_key: str | None, transport: httpx.BaseTransport | None = None) -> None:
        headers = {"User-Agent": "paretune-client"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self.url = url
        self.http = httpx.Client(base_url=url, headers=headers, timeout=_timeout(), transport=transport)

    def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | None = None,
        params: JsonObject | None = None,
        headers: dict[str, str] | None = None,
        create: bool = False,
        patient: bool = False,
        attempts: int = ATTEMPTS,
    ) -> httpx.Response:
        """Send a request; repeat it when that is safe and may help.

        Args:
            method: HTTP method.
            path: Path on the server.
            json: Body as a JSON value.
            content: Body as bytes.
            params: Query; ``None`` values are left out.
            headers: More headers.
            create: Send an ``Idempotency-Key``, so that a repeated POST creates once.
            patient: The service does long work before it answers: wait for that.
            attempts: How often to send it at most.

        Raises:
            ApiError: The service refused, failed, or cannot be reached.
        """
        headers = dict(headers or {})
        if create:
            headers["Idempotency-Key"] = uuid.uuid4().hex
        query = {name: value for name, value in (params or {}).items() if value is not None}
        safe = create or method in _SAFE
        timeout = _timeout(LONG_WORK_SECONDS) if patient else httpx.USE_CLIENT_DEFAULT
        for attempt in range(1, attempts + 1):
            last = attempt == attempts or not safe
            try:
                response = self.http.request(
                    method, path, json=json, content=content, params=query, headers=headers, timeout=timeout
                )
            except httpx.TransportError as error:
                never_there = attempt == 1 and isinstance(error, httpx.ConnectError)
                if last or never_there or isinstance(error, httpx.UnsupportedProtocol):
                    raise ApiError.unreachable(self.url, error, repeatable=method in _SAFE) from error
            except httpx.InvalidURL as error:
                raise ApiError.unreachable(self.url, error) from error
            else:
                if response.status_code not in _TRY_AGAIN or last:
                    if response.is_error:
                        raise ApiError.from_response(response)
                    return response
            time.sleep(_FIRST_DELAY_SECONDS * 2 ** (attempt - 1) * random.uniform(0.7, 1.3))  # noqa: S311 - jitter
        raise AssertionError("unreachable")

    def json(self, method: str, path: str, **options: Any) -> JsonObject:
        """Send a request and return the object that it is answered with."""
        body = self.request(method, path, **options).json()
        assert isinstance(body, dict)
        return body

    @contextmanager
    def stream(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, read_seconds: float = _READ_SECONDS
    ) -> Iterator[httpx.Response]:
        """Send a request and hand out the answer while it arrives.

        Raises:
            ApiError: The service refused or failed.
            httpx.TransportError: The connection was lost; the caller knows how to go on.
        """
        with self.http.stream(method, path, headers=headers, timeout=_timeout(read_seconds)) as response:
            if response.is_error:
                response.read()
                raise ApiError.from_response(response)
            yield response

    def pages(self, path: str, **params: Any) -> Iterator[JsonObject]:
        """Go through all items of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.json("GET", path, params={**params, "cursor": cursor})
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def close(self) -> None:
        """Close all connections."""
        self.http.close()
