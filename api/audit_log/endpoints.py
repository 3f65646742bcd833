"""``/v1/audit``: who did what, for administrators."""

from datetime import datetime
from typing import Annotated
from typing import Any

from fastapi import APIRouter
from fastapi import Query
from pydantic import BaseModel
from sqlmodel import col
from sqlmodel import select

from api.auth import Administrator
from api.pagination import Limit
from api.pagination import Page
from api.problems import responses
from api.services import ReadSession
from infra.database.models import AuditEntry

router = APIRouter(prefix="/v1/audit", tags=["keys"])

Before = Annotated[int | None, Query(alias="cursor", ge=0, le=1 << 62, description="`next_cursor` of the page before.")]


class AuditView(BaseModel):
    """One deed."""

    id: int
    principal: str
    """Id of the key that did it."""
    action: str
    """Such as ``key.create``, ``device.delete`` or ``job.cancel``."""
    target: str
    details: dict[str, Any]
    created_at: datetime


@router.get("", response_model=Page[AuditView], responses=responses(422))
def list_audit_entries(
    session: ReadSession, _principal: Administrator, limit: Limit = 50, cursor: Before = None
) -> Page[AuditView]:
    """List what was done to keys, devices, models, datasets and jobs, newest first."""
    statement = select(AuditEntry).order_by(col(AuditEntry.id).desc()).limit(limit + 1)
    if cursor is not None:
        statement = statement.where(col(AuditEntry.id) < cursor)
    rows = [AuditView.model_validate(row, from_attributes=True) for row in session.exec(statement)]
    return Page(items=rows[:limit], next_cursor=str(rows[limit - 1].id) if len(rows) > limit else None)
