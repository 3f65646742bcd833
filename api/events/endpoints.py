"""``/v1/jobs/{id}/events``: server-sent events, replayed from ``Last-Event-ID``."""

from collections.abc import AsyncIterator
from time import monotonic
from typing import Annotated

from fastapi import APIRouter
from fastapi import Depends
from fastapi import Header
from fastapi import Query
from fastapi import Request
from fastapi.sse import EventSourceResponse
from fastapi.sse import ServerSentEvent
from sqlmodel import col

from api.auth import Reader
from api.events.hub import BATCH
from api.events.hub import EventHub
from api.ownership import get_owned
from api.problems import responses
from api.services import CurrentServices
from infra.database.models import Event
from infra.database.models import Job

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["events"])

LONGEST_STREAM_SECONDS = 600.0
"""A stream ends after this time and the client comes back where it was: nothing is held for ever."""
RETRY_MILLISECONDS = 1000


def _visible_job(job_id: str, services: CurrentServices, principal: Reader) -> str:
    with services.database.read_session() as session:
        return get_owned(session, Job, job_id, principal, later=[col(Job.prepared)]).id


def coalesce(events: list[Event]) -> list[Event]:
    """Drop all ``progress`` events of a batch but the last: each says where things are, not what changed."""
    last = max((index for index, event in enumerate(events) if event.kind == "progress"), default=None)
    return [event for index, event in enumerate(events) if event.kind != "progress" or index == last]


def _to_sse(event: Event) -> ServerSentEvent:
    data = {"id": event.id, "kind": event.kind, "created_at": event.created_at, "payload": event.payload}
    return ServerSentEvent(id=str(event.id), event=event.kind, data=data)


@router.get("", response_class=EventSourceResponse, responses=responses(404, 422))
async def watch_job(
    request: Request,
    job_id: Annotated[str, Depends(_visible_job)],
    last_event_id: Annotated[int | None, Header(ge=0, le=1 << 62, description="Continue after this event.")] = None,
    after: Annotated[int, Query(ge=0, le=1 << 62, description="The same, for clients that cannot set a header.")] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """Watch a job: ``state``, ``stage``, ``trial``, ``progress``, ``notice`` and ``error`` events as they happen.

    The stream ends with an ``end`` event when the job is over and everything has been sent. It also ends, without one,
    after ten minutes or when the service stops: come back with ``Last-Event-ID``.
    """
    hub: EventHub = request.app.state.events
    position = after if last_event_id is None else last_event_id
    deadline = monotonic() + LONGEST_STREAM_SECONDS
    yield ServerSentEvent(comment="connected", retry=RETRY_MILLISECONDS)
    with hub.watch(job_id) as news:
        while monotonic() < deadline and not hub.closing.is_set():
            news.clear()
            events, over = await hub.read(job_id, position)
            for event in coalesce(events):
                yield _to_sse(event)
            if events:
                position = events[-1].id or position
            if len(events) == BATCH:
                continue
            if over:
                yield ServerSentEvent(event="end", data={})
                return
            await hub.wait(news)
