"""Composition root of the HTTP service: ``uvicorn --factory api.app:create_app``."""

from collections.abc import AsyncIterator
from collections.abc import MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CollectorRegistry

from api.audit_log.endpoints import router as audit_log
from api.best.endpoints import router as best
from api.datasets.endpoints import router as datasets
from api.devices.endpoints import router as devices
from api.documentation import router as documentation
from api.events.endpoints import router as events
from api.events.hub import EventHub
from api.exports.endpoints import router as exports
from api.front.endpoints import router as front
from api.health.endpoints import router as health
from api.health.metrics import DatabaseCollector
from api.health.metrics import MetricsMiddleware
from api.jobs.best_so_far import BestCache
from api.jobs.endpoints import router as jobs
from api.keys.endpoints import router as keys
from api.middleware import BodyLimitMiddleware
from api.middleware import HostMiddleware
from api.middleware import RequestIdMiddleware
from api.models.endpoints import router as models
from api.openapi import describe
from api.problems import add_problem_handlers
from api.rate_limit import make_limiter
from api.reports.endpoints import router as reports
from api.services import Services
from api.shutdown import on_stop_signal
from api.staging import remove_abandoned
from api.trials.endpoints import router as trials
from api.uploads.endpoints import router as uploads
from api.version import VERSION
from infra.database.engine import Database
from infra.log import configure_logging
from infra.settings import Settings
from infra.settings import load_settings
from infra.store.open import open_store
from infra.tracing import configure_tracing

ROUTERS = (
    models,
    datasets,
    uploads,
    devices,
    jobs,
    trials,
    front,
    best,
    reports,
    exports,
    events,
    keys,
    audit_log,
    health,
)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    configure_logging(services.settings.log_format)
    remove_abandoned(services.staging)
    hub: EventHub = app.state.events
    with on_stop_signal(hub.close):
        yield
    hub.close()
    services.database.dispose()


def _is_probe(scope: MutableMapping[str, Any]) -> bool:
    """Whether a request is one of those that monitoring sends every few seconds: not worth a trace."""
    return str(scope.get("path", "")).startswith(("/health/", "/metrics"))


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the app; nothing is connected before the first request.

    Args:
        settings: Read from the environment if not given.
    """
    settings = settings or load_settings()
    services = Services(settings, Database(settings.database_url), open_store(settings.store_url))
    registry = CollectorRegistry()
    registry.register(DatabaseCollector(services.database))
    configure_tracing(settings, "api")
    telemetry: TelemetryConfig = {"tracing": settings.tracing, "metrics": False, "logs": False, "exclude": _is_probe}
    app = FastAPI(
        title="Paretune", version=VERSION, lifespan=_lifespan, docs_url=None, redoc_url=None, telemetry=telemetry
    )
    app.state.services = services
    app.state.registry = registry
    app.state.limiter = make_limiter(settings)
    app.state.best = BestCache()
    app.state.events = EventHub(services.database)
    for router in (*ROUTERS, documentation):
        app.include_router(router)
    add_problem_handlers(app)
    # The one added last sees a request first.
    app.add_middleware(BodyLimitMiddleware, limit=settings.max_json_bytes)
    app.add_middleware(HostMiddleware, allowed_hosts=settings.allowed_hosts)
    app.add_middleware(MetricsMiddleware, registry=registry)
    app.add_middleware(RequestIdMiddleware)
    describe(app)
    return app
