"""Errors as RFC 9457 ``application/problem+json``."""

import logging
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from pydantic import Field
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.exc import StaleDataError
from starlette.exceptions import HTTPException

from infra.errors import ConflictError
from infra.errors import ParetuneError

logger = logging.getLogger("paretune.api")

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:paretune:problem:"

_RETRY_AFTER_SECONDS = "2"
_SHOULD_BE = re.compile(r"^(Input|String|Value) should be")
_COMPARISONS = {
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "more than",
}
"""What pydantic says, in fewer words; the longer ones come first."""


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str
    message: str


class Problem(BaseModel):
    """The body of every answer that is not a success."""

    type: str = Field(description="Stable name of the kind of problem: `urn:paretune:problem:<code>`.")
    title: str = Field(description="The kind of problem in a few words.")
    status: int
    detail: str = Field(description="What is wrong.")
    hint: str = Field(description="What to do about it.")
    instance: str = Field(description="The request's id; the service's log has it too.")
    errors: list[FieldProblem] = Field(description="Problems of single fields.")


def request_id(request: Request) -> str:
    """The id that the middleware gave to this request."""
    return str(getattr(request.state, "request_id", "unknown"))


def problem_response(
    request: Request,
    *,
    status: int,
    code: str,
    title: str,
    detail: str,
    hint: str = "",
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Build the answer for one problem."""
    body = {
        "type": TYPE_PREFIX + code,
        "title": title,
        "status": status,
        "detail": detail,
        "hint": hint,
        "instance": f"urn:paretune:request:{request_id(request)}",
        "errors": [
            {"field": str(error.get("field", "")), "message": str(error.get("message", ""))} for error in errors or []
        ],
    }
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=headers)


def error_response(request: Request, error: ParetuneError) -> JSONResponse:
    """Build the answer for an error of ours."""
    headers: dict[str, str] = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS}:
        headers["Retry-After"] = _RETRY_AFTER_SECONDS
    return problem_response(
        request,
        status=error.status,
        code=error.code,
        title=error.title,
        detail=error.message,
        hint=error.hint,
        errors=error.errors,
        headers=headers,
    )


def _on_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ParetuneError)
    if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request %s: %s", request_id(request), error.message, exc_info=error)
    return error_response(request, error)


def _field_name(location: tuple[int | str, ...]) -> str:
    parts = [str(part) for part in location]
    if len(parts) > 1 and parts[0] == "body":
        parts = parts[1:]
    return ".".join(parts)[:200]


def _field_message(error: dict[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "no such field: check the spelling, or remove it"
    if error["type"] == "missing":
        return "is required"
    if error["type"] == "string_pattern_mismatch":
        return f"has a character that is not allowed, or too many: it must match {error['ctx']['pattern']}"
    message = _SHOULD_BE.sub("must be", str(error["msg"]).removeprefix("Value error, "))
    for theirs, ours in _COMPARISONS.items():
        message = message.replace(theirs, ours)
    return message[:1].lower() + message[1:]


def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    errors = [{"field": _field_name(e["loc"]), "message": _field_message(e)} for e in error.errors()]
    first = errors[0] if errors else {"field": "body", "message": "is not valid"}
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return problem_response(
        request,
        status=422,
        code="invalid-request",
        title="Invalid request",
        detail=f"{first['field']}: {first['message']}{more}.",
        hint="Correct the fields listed under errors; /docs describes every field.",
        errors=errors,
    )


def _on_http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ParetuneError):
        return error_response(request, error.__cause__)
    title = HTTPStatus(error.status_code).phrase
    detail, hint = str(error.detail), ""
    if error.status_code == HTTPStatus.NOT_FOUND:
        detail, hint = f"There is nothing at {request.url.path}.", "/docs lists every path."
    elif error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not possible at {request.url.path}."
        hint = f"Allowed: {(error.headers or {}).get('Allow', 'see /docs')}."
    return problem_response(
        request,
        status=error.status_code,
        code=title.lower().replace(" ", "-"),
        title=title,
        detail=detail,
        hint=hint,
        headers=dict(error.headers or {}),
    )


def _on_race(request: Request, error: Exception) -> JSONResponse:
    """Two requests changed the same rows: the database let one of them through, and this is the other."""
    logger.info("request %s: lost a race: %s", request_id(request), error)
    conflict = ConflictError(
        "Another request changed the same thing at this moment.", hint="Read it again, then retry."
    )
    return error_response(request, conflict)


def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("request %s: unexpected exception", request_id(request), exc_info=error)
    return problem_response(
        request,
        status=500,
        code="internal",
        title="Internal error",
        detail="The service failed at something it did not expect.",
        hint="Report the instance; the service's log says more under it.",
        headers={"X-Request-ID": request_id(request)},
    )


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error of the app with a problem."""
    app.add_exception_handler(ParetuneError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(IntegrityError, _on_race)
    app.add_exception_handler(StaleDataError, _on_race)
    app.add_exception_handler(Exception, _on_unexpected)


def responses(*statuses: int, **others: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Describe answers for the OpenAPI document: problems by status, and others as ``http_206={...}``."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": _SCHEMA}}}
        for status in statuses
    }
    return described | {int(name.removeprefix("http_")): answer for name, answer in others.items()}


_SCHEMA = {"$ref": "#/components/schemas/Problem"}
