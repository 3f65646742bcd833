"""Prometheus metrics: what the database knows is read at every scrape, what only this process knows is counted."""

from collections.abc import Iterable
from collections.abc import Iterator
from time import perf_counter

from prometheus_client import CollectorRegistry
from prometheus_client import Counter
from prometheus_client import Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy import func
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select
from starlette.types import ASGIApp
from starlette.types import Message
from starlette.types import Receive
from starlette.types import Scope
from starlette.types import Send

from api.health.work import work_families
from infra.clock import utcnow
from infra.counters import LEASES_EXPIRED
from infra.counters import counted
from infra.database.engine import Database
from infra.database.models import Device
from infra.database.models import DeviceLease
from infra.database.models import Job
from infra.database.models import Step
from infra.database.models import Trial
from infra.errors import UnavailableError

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class DatabaseCollector(Collector):
    """Gauges that are counts of rows."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def collect(self) -> Iterator[Metric]:
        """Read all gauges; without a database there are none but ``paretune_database_up``."""
        up = GaugeMetricFamily("paretune_database_up", "1 if the database answers.")
        try:
            with self._database.read_session() as session:
                families = [*_families(session)]
        except (UnavailableError, SQLAlchemyError):
            families = []
        up.add_metric([], float(bool(families)))
        yield up
        yield from families

    def describe(self) -> Iterable[Metric]:
        """Nothing: registering must not need a database."""
        return []


def _families(session: Session) -> Iterator[Metric]:
    jobs = GaugeMetricFamily("paretune_jobs", "Jobs by state.", labels=["state"])
    for state, count in session.exec(select(Job.state, func.count()).group_by(Job.state)):
        jobs.add_metric([state], count)
    yield jobs
    trials = GaugeMetricFamily("paretune_trials", "Trials by state.", labels=["state"])
    for state, count in session.exec(select(Trial.state, func.count()).group_by(Trial.state)):
        trials.add_metric([state], count)
    yield trials
    steps = GaugeMetricFamily("paretune_steps", "Unfinished and failed steps.", labels=["queue", "state"])
    waiting = col(Step.state).in_(("queued", "running", "failed"))
    for queue, state, count in session.exec(
        select(Step.queue, Step.state, func.count()).where(waiting).group_by(Step.queue, Step.state)
    ):
        steps.add_metric([queue, state], count)
    yield steps
    expired = GaugeMetricFamily("paretune_leases_expired", "Running steps whose lease is over.")
    overdue = select(func.count()).where(Step.state == "running", col(Step.lease_expires_at) < utcnow())
    expired.add_metric([], session.exec(overdue).one())
    yield expired
    lost = CounterMetricFamily("paretune_lease_expirations", "Steps taken back from workers that were silent or dead.")
    lost.add_metric([], counted(session, LEASES_EXPIRED))
    yield lost
    busy = GaugeMetricFamily("paretune_device_busy", "1 while a device measures.", labels=["device"])
    leased = set(session.exec(select(DeviceLease.device_id).where(DeviceLease.expires_at > utcnow())))
    for device_id, name in session.exec(select(Device.id, Device.name)):
        busy.add_metric([name], float(device_id in leased))
    yield busy
    yield from work_families(session)


class MetricsMiddleware:
    """Counts and times requests by route template, so that ids do not become labels."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self.app = app
        self.requests = Counter(
            "paretune_http_requests", "Answered requests.", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "paretune_http_request_seconds", "Time to the first byte of the answer.", ["route"], registry=registry
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = perf_counter()

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                self.requests.labels(method, route, str(message["status"])).inc()
                self.seconds.labels(route).observe(perf_counter() - start)
            await send(message)

        await self.app(scope, receive, send_counted)
