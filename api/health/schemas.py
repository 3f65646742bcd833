"""Bodies of the health checks."""

from pydantic import BaseModel


class Live(BaseModel):
    """The process answers."""

    status: str
    version: str


class Check(BaseModel):
    """One part that the service needs."""

    name: str
    ok: bool
    detail: str


class Ready(BaseModel):
    """Whether the service can take work."""

    status: str
    """``ready`` or ``not ready``."""
    checks: list[Check]
