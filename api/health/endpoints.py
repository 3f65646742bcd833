"""``/health/live``, ``/health/ready`` and ``/metrics``: open, and without anything that belongs to a user."""

import logging
import shutil
from collections.abc import Callable

from fastapi import APIRouter
from fastapi import Request
from fastapi import Response
from prometheus_client import CONTENT_TYPE_LATEST
from prometheus_client import generate_latest
from sqlalchemy import text

from api.health.schemas import Check
from api.health.schemas import Live
from api.health.schemas import Ready
from api.services import CurrentServices
from api.services import Services
from api.version import VERSION
from infra.errors import ParetuneError
from infra.errors import UnavailableError

logger = logging.getLogger("paretune.api")

router = APIRouter(tags=["operations"])

LEAST_FREE_BYTES = 256 << 20


def _database(services: Services) -> str:
    with services.database.read_session() as session:
        session.execute(text("SELECT 1 FROM job LIMIT 1"))
    return services.database.dialect


def _store(services: Services) -> str:
    services.store.exists("0" * 64)
    return "answers"


def _disk(services: Services) -> str:
    free = shutil.disk_usage(services.staging).free
    if free < LEAST_FREE_BYTES:
        raise UnavailableError(f"only {free >> 20} MiB are free")
    return f"{free >> 20} MiB free"


_CHECKS: dict[str, Callable[[Services], str]] = {"database": _database, "store": _store, "disk": _disk}


def _run(name: str, services: Services) -> Check:
    try:
        return Check(name=name, ok=True, detail=_CHECKS[name](services))
    except ParetuneError as error:
        logger.warning("not ready: %s: %s", name, error.explain())
        return Check(name=name, ok=False, detail=error.message)
    except Exception as error:  # whatever it is, the part is not usable
        logger.warning("not ready: %s: %r", name, error)
        return Check(name=name, ok=False, detail=type(error).__name__)


@router.get("/health/live", response_model=Live)
def live() -> Live:
    """Whether the process answers at all."""
    return Live(status="live", version=VERSION)


@router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready}})
def ready(services: CurrentServices, response: Response) -> Ready:
    """Whether the service can take work: database, artifact store, disk."""
    checks = [_run(name, services) for name in _CHECKS]
    fine = all(check.ok for check in checks)
    response.status_code = 200 if fine else 503
    return Ready(status="ready" if fine else "not ready", checks=checks)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def metrics(request: Request) -> Response:
    """Numbers for Prometheus: queues, steps, jobs, trials, devices, requests."""
    return Response(generate_latest(request.app.state.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
