"""Who did what: written in the transaction of the deed."""

from typing import Any

from sqlmodel import Session

from api.auth import Principal
from infra.database.models import AuditEntry


def record(session: Session, principal: Principal, action: str, target: str, **details: Any) -> None:
    """Note an action of a key; it is kept if and only if the transaction commits."""
    session.add(AuditEntry(principal=principal.id, action=action, target=target, details=details))
