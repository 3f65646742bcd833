"""``/v1/keys``: made, listed, rotated and revoked by administrators."""

from typing import Annotated

from fastapi import APIRouter
from fastapi import Path
from fastapi.responses import JSONResponse
from sqlmodel import Session
from sqlmodel import select

from api import audit
from api.auth import Administrator
from api.auth import Anyone
from api.keys.schemas import KeyCreate
from api.keys.schemas import KeyView
from api.keys.schemas import KeyWithSecret
from api.keys.schemas import Quotas
from api.keys.schemas import key_view
from api.pagination import Cursor
from api.pagination import Limit
from api.pagination import Page
from api.pagination import page_of
from api.problems import responses
from api.responses import created
from api.services import ReadSession
from api.services import WriteSession
from infra.api_keys import new_key
from infra.api_keys import renew_secret
from infra.clock import utcnow
from infra.database.models import ApiKey
from infra.errors import ConflictError
from infra.errors import InvalidInputError
from infra.errors import NotFoundError

router = APIRouter(prefix="/v1/keys", tags=["keys"])

KeyId = Annotated[str, Path(max_length=100)]


def _get(session: Session, key_id: str) -> ApiKey:
    row = session.get(ApiKey, key_id)
    if row is None:
        raise NotFoundError(f"There is no key {key_id!r}.", hint="`paretune keys` and GET /v1/keys list them.")
    return row


def _set_quotas(row: ApiKey, quotas: dict[str, int | None]) -> None:
    for name, value in quotas.items():
        setattr(row, name, value)


@router.get("/me", response_model=KeyView)
def get_own_key(session: ReadSession, principal: Anyone) -> KeyView:
    """Read the key that this request uses: its name, scopes and expiry."""
    return key_view(_get(session, principal.id))


@router.get("", response_model=Page[KeyView], responses=responses(422))
def list_keys(
    session: ReadSession, _principal: Administrator, limit: Limit = 50, cursor: Cursor = None
) -> Page[KeyView]:
    """List all keys, newest first."""
    rows, following = page_of(session, select(ApiKey), ApiKey, limit, cursor)
    return Page(items=[key_view(row) for row in rows], next_cursor=following)


@router.post("", status_code=201, response_model=KeyWithSecret, responses=responses(422))
def create_key(body: KeyCreate, session: WriteSession, principal: Administrator) -> JSONResponse:
    """Make a key. The answer is the only time that its secret is shown."""
    if body.expires_at is not None and body.expires_at <= utcnow():
        raise InvalidInputError(
            "expires_at is in the past.",
            hint="Give a moment in the future, or leave it out.",
            errors=[{"field": "expires_at", "message": "is in the past"}],
        )
    row, text = new_key(body.name, body.scopes, expires_at=body.expires_at)
    _set_quotas(row, body.model_dump(include=set(Quotas.model_fields)))
    session.add(row)
    audit.record(session, principal, "key.create", row.id, name=row.name, scopes=row.scopes)
    return created(KeyWithSecret(**key_view(row).model_dump(), key=text), f"/v1/keys/{row.id}")


@router.patch("/{key_id}", response_model=KeyView, responses=responses(404, 422))
def change_quotas(key_id: KeyId, body: Quotas, session: WriteSession, principal: Administrator) -> KeyView:
    """Change the quotas that are given; ``null`` removes one. Jobs that are there already stay."""
    row = _get(session, key_id)
    given = body.model_dump(exclude_unset=True)
    _set_quotas(row, given)
    session.add(row)
    audit.record(session, principal, "key.quotas", row.id, **given)
    return key_view(row)


@router.post("/{key_id}/rotate", response_model=KeyWithSecret, responses=responses(404, 409))
def rotate_key(key_id: KeyId, session: WriteSession, principal: Administrator) -> KeyWithSecret:
    """Replace the secret. The old one stops working at once; models, datasets and jobs stay with the key."""
    row = _get(session, key_id)
    if row.revoked_at is not None:
        raise ConflictError(f"The key {key_id} is revoked.", hint="Make a new key.")
    text = renew_secret(row)
    session.add(row)
    audit.record(session, principal, "key.rotate", row.id)
    return KeyWithSecret(**key_view(row).model_dump(), key=text)


@router.delete("/{key_id}", status_code=204, responses=responses(404, 409))
def revoke_key(key_id: KeyId, session: WriteSession, principal: Administrator) -> None:
    """Revoke a key at once and for good."""
    row = _get(session, key_id)
    if row.id == principal.id:
        raise ConflictError("A key cannot revoke itself.", hint="Use another key with the scope admin.")
    if row.revoked_at is None:
        row.revoked_at = utcnow()
        session.add(row)
        audit.record(session, principal, "key.revoke", row.id)
