"""Bodies of the keys resource."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from api.auth import Scope
from infra.database.models import ApiKey


class Quotas(BaseModel):
    """How much a key may ask for; ``null``: what the service allows everybody."""

    model_config = ConfigDict(extra="forbid")

    max_active_jobs: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    """Jobs that are queued or running; 0: none can be submitted."""
    max_workers: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Workers of one queue that may work for the key at a time."""
    max_priority: Annotated[int, Field(ge=0, le=9)] | None = None
    """Highest priority of its jobs."""


class KeyCreate(Quotas):
    """A new API key."""

    name: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=10)] = ["read", "submit"]
    expires_at: AwareDatetime | None = None


class KeyView(BaseModel):
    """An API key without its secret."""

    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    max_active_jobs: int | None
    max_workers: int | None
    max_priority: int | None


class KeyWithSecret(KeyView):
    """A key as it is shown once."""

    key: str
    """``prefix.secret``: what a client sends. It is not stored and cannot be shown again."""


def key_view(row: ApiKey) -> KeyView:
    """Describe a key."""
    return KeyView(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        scopes=row.scopes,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        max_active_jobs=row.max_active_jobs,
        max_workers=row.max_workers,
        max_priority=row.max_priority,
    )
