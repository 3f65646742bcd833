"""Who is asking, and what they may do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated
from typing import Literal

from fastapi import Depends
from fastapi import Request
from fastapi.security import HTTPAuthorizationCredentials
from fastapi.security import HTTPBearer
from sqlmodel import select

from api.rate_limit import Limiter
from api.services import CurrentServices
from infra.api_keys import is_valid
from infra.api_keys import split_key
from infra.database.models import ApiKey
from infra.errors import ForbiddenError
from infra.errors import UnauthorizedError

Scope = Literal["read", "submit", "admin", "device"]

_HINT = (
    "Send `Authorization: Bearer <key>`. The embedded service writes its key to <home>/api-key; "
    "an administrator makes others with `paretune keys add`."
)
_bearer = HTTPBearer(auto_error=False, scheme_name="API key", description="`prefix.secret`, as shown once.")


@dataclass(frozen=True)
class Principal:
    """An authenticated API key; ``id`` is the owner of everything that is made with it."""

    id: str
    name: str
    scopes: frozenset[str]


def authenticate(
    request: Request,
    services: CurrentServices,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> Principal:
    """Dependency: the key of this request.

    Raises:
        UnauthorizedError: No key, or one that is unknown, expired or revoked; the answer does not say which.
        RateLimitedError: Too many requests with this key, or too many wrong keys from this address.
    """
    limiter: Limiter = request.app.state.limiter
    if credentials is None:
        raise UnauthorizedError("This needs an API key.", hint=_HINT)
    prefix, secret = split_key(credentials.credentials)
    with services.database.read_session() as session:
        key = session.exec(select(ApiKey).where(ApiKey.prefix == prefix)).one_or_none()
    if key is None or not is_valid(key, secret):
        limiter.take(f"wrong key from {request.client.host if request.client else 'nowhere'}")
        raise UnauthorizedError("This API key is not valid.", hint=_HINT)
    limiter.take(key.id)
    return Principal(key.id, key.name, frozenset(key.scopes))


Anyone = Annotated[Principal, Depends(authenticate)]


def require(scope: Scope) -> Callable[[Principal], Principal]:
    """Return a dependency that demands ``scope``."""

    def check(principal: Anyone) -> Principal:
        if scope not in principal.scopes:
            raise ForbiddenError(
                f"The key {principal.name!r} lacks the scope {scope!r}.",
                hint=f"Use a key with it: `paretune keys add NAME --scope {scope}`.",
            )
        return principal

    return check


Reader = Annotated[Principal, Depends(require("read"))]
Submitter = Annotated[Principal, Depends(require("submit"))]
Administrator = Annotated[Principal, Depends(require("admin"))]
