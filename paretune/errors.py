"""What the client raises."""

from typing import Any

import httpx


class ApiError(Exception):
    """The service refused a request, failed at it, or could not be reached.

    Attributes:
        status: HTTP status; 0 if there was no answer.
        code: Stable name of the kind of problem, such as ``invalid-model``.
        title: The kind of problem in a few words.
        detail: What is wrong.
        hint: What to do about it.
        errors: Problems of single fields: ``{"field": ..., "message": ...}``.
        request_id: What the service's log calls the request.
        body: The object that the service answered with; empty if there was none.
    """

    def __init__(
        self,
        detail: str,
        *,
        hint: str = "",
        status: int = 0,
        code: str = "client",
        title: str = "Error",
        errors: list[dict[str, Any]] | None = None,
        request_id: str = "",
        body: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.status = status
        self.code = code
        self.title = title
        self.errors = errors or []
        self.request_id = request_id
        self.body = body or {}

    @classmethod
    def from_response(cls, response: httpx.Response) -> "ApiError":
        """Read the problem that a response carries; any other body still gives a sentence."""
        try:
            body = response.json()
        except ValueError:
            body = {}
        if not isinstance(body, dict):
            body = {}
        return cls(
            str(body.get("detail") or f"The service answered {response.status_code} {response.reason_phrase}."),
            hint=str(body.get("hint", "")),
            status=response.status_code,
            code=str(body.get("type", "unknown")).rpartition(":")[2],
            title=str(body.get("title", response.reason_phrase)),
            errors=[error for error in body.get("errors", []) if isinstance(error, dict)],
            request_id=response.headers.get("x-request-id", ""),
            body=body,
        )

    @classmethod
    def unreachable(cls, url: str, cause: Exception, *, repeatable: bool = True) -> "ApiError":
        """The error for a service that does not answer.

        Args:
            url: Where it should be.
            cause: What happened to the request.
            repeatable: Whether nothing happens twice when the same call is made again.
        """
        if isinstance(cause, httpx.ReadTimeout):
            return cls(
                f"The service at {url} took the request but has not answered in time; it may still be working on it.",
                hint="Try again: that is safe." if repeatable else "Look whether it was done before you ask again.",
                code="no-answer",
                title="No answer yet",
            )
        if isinstance(cause, httpx.UnsupportedProtocol):
            return cls(
                f"{url!r} is not the address of a service.",
                hint="Write it with the protocol and the port, such as http://127.0.0.1:8765.",
                code="invalid-url",
                title="Invalid URL",
            )
        return cls(
            f"No Paretune service answers at {url} ({type(cause).__name__}: {cause}).",
            hint="Start one with `paretune up`, or set PARETUNE_URL to where it runs.",
            code="unreachable",
            title="Service not reachable",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "code": self.code,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "hint": self.hint,
            "errors": self.errors,
            "request_id": self.request_id,
        }


class JobFailedError(ApiError):
    """The job that was waited for ended without success."""
