"""Every error that Paretune raises on purpose, in one tree.

An error carries a stable ``code`` (the last part of the problem's ``type`` URI), a sentence that says what is
wrong, a ``hint`` that says what to do about it, and the HTTP status that the API answers with. The same
error serialises into a job's ``error`` column, so that a failed job tells its user the same thing that a
refused request would have told.
"""

from typing import Any
from typing import ClassVar


class ParetuneError(Exception):
    """Root of the tree.

    Args:
        message: One sentence: what is wrong, naming the thing it is wrong with.
        hint: One sentence: what the user can do about it.
        errors: Field-level details, each ``{"field": ..., "message": ...}``.
    """

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Internal error"
    status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "", errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.errors = errors or []

    def explain(self) -> str:
        """Return the message and, on the same line, what caused it: for logs and operators, not for answers.

        What a driver says may name hosts, users and paths, so it never becomes a part of the message.
        """
        cause = getattr(self.__cause__, "orig", None) or self.__cause__
        return f"{self.message} ({type(cause).__name__}: {' '.join(str(cause).split())})" if cause else self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that is stored in ``job.error`` and sent over the runner's pipe."""
        return {
            "code": self.code,
            "title": self.title,
            "message": self.message,
            "hint": self.hint,
            "errors": self.errors,
        }


class InvalidInputError(ParetuneError):
    """The request, the model or the data cannot be used as given."""

    code = "invalid-input"
    title = "Invalid input"
    status = 422


class InvalidModelError(InvalidInputError):
    """The uploaded model is refused: wrong file, damaged file, or an architecture that is not supported."""

    code = "invalid-model"
    title = "Model refused"


class InvalidDatasetError(InvalidInputError):
    """The dataset is refused: unreadable, a missing column, or labels that do not fit the model."""

    code = "invalid-dataset"
    title = "Dataset refused"


class InfeasibleGoalError(InvalidInputError):
    """The goal cannot be reached on this device; the message says what is the best that can."""

    code = "infeasible-goal"
    title = "Goal out of reach"


class UnauthorizedError(ParetuneError):
    """No API key, or one that is unknown, expired or revoked."""

    code = "unauthorized"
    title = "API key required"
    status = 401


class ForbiddenError(ParetuneError):
    """The API key lacks the scope for this operation."""

    code = "forbidden"
    title = "Not allowed"
    status = 403


class NotFoundError(ParetuneError):
    """No such resource, or it belongs to somebody else."""

    code = "not-found"
    title = "Not found"
    status = 404


class ConflictError(ParetuneError):
    """The resource is not in a state that allows this."""

    code = "conflict"
    title = "Conflict"
    status = 409


class PreconditionFailedError(ParetuneError):
    """The resource changed since the client read it (``If-Match``)."""

    code = "precondition-failed"
    title = "The resource has changed"
    status = 412


class TooLargeError(ParetuneError):
    """A body, file or collection exceeds a limit."""

    code = "too-large"
    title = "Too large"
    status = 413


class RateLimitedError(ParetuneError):
    """Too many requests with this API key."""

    code = "rate-limited"
    title = "Too many requests"
    status = 429


class UnavailableError(ParetuneError):
    """A part of the service is away for the moment (database locked, broker gone, disk full): try again."""

    code = "unavailable"
    title = "Try again later"
    status = 503


class StaleLeaseError(ParetuneError):
    """The caller's lease was taken over: its result must be thrown away."""

    code = "stale-lease"
    title = "Lease lost"
    status = 409


class RunnerError(ParetuneError):
    """A runner process failed: killed by a signal, out of memory, out of time, or an unexpected exception."""

    code = "runner-failed"
    title = "The work failed"


class CancelledError(ParetuneError):
    """The job was cancelled by its user."""

    code = "cancelled"
    title = "Cancelled"
    status = 409


_BY_CODE: dict[str, type[ParetuneError]] = {}


def _register(cls: type[ParetuneError]) -> None:
    _BY_CODE[cls.code] = cls
    for child in cls.__subclasses__():
        _register(child)


_register(ParetuneError)


def from_dict(payload: dict[str, Any]) -> ParetuneError:
    """Rebuild an error from :meth:`ParetuneError.to_dict`; an unknown code becomes the root class."""
    cls = _BY_CODE.get(str(payload.get("code")), ParetuneError)
    return cls(
        str(payload.get("message", "")),
        hint=str(payload.get("hint", "")),
        errors=list(payload.get("errors", [])),
    )
