"""Bodies of the keys resource."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime
from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from api.auth import Scope
from infra.database.models import ApiKey


class KeyCreate(BaseModel):
    """A new API key."""

    model_config = ConfigDict(extra="forbid")

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
    )
