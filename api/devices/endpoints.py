"""``/v1/devices``: shared by all keys, registered by administrators."""

from fastapi import APIRouter
from fastapi import Response
from fastapi.responses import JSONResponse
from sqlmodel import Session
from sqlmodel import select

from api import audit
from api.auth import Administrator
from api.auth import Reader
from api.devices.schemas import DeviceCreate
from api.devices.schemas import DeviceView
from api.devices.schemas import device_view
from api.etags import IfMatch
from api.etags import IfNoneMatch
from api.etags import check_unchanged
from api.etags import conditional
from api.etags import etag_of_view
from api.idempotency import Once
from api.pagination import Cursor
from api.pagination import Limit
from api.pagination import Page
from api.pagination import page_of
from api.problems import responses
from api.responses import created
from api.services import ReadSession
from api.services import WriteSession
from infra.database.models import Device
from infra.database.models import Job
from infra.errors import ConflictError
from infra.errors import InvalidInputError
from infra.errors import NotFoundError
from profilers.registry import profiler_names

router = APIRouter(prefix="/v1/devices", tags=["devices"])


def _get(session: Session, name: str) -> Device:
    device = session.exec(select(Device).where((Device.name == name) | (Device.id == name))).first()
    if device is None:
        raise NotFoundError(f"There is no device {name[:100]!r}.", hint="GET /v1/devices lists them.")
    return device


@router.get("", response_model=Page[DeviceView], responses=responses(422))
def list_devices(
    session: ReadSession, _principal: Reader, limit: Limit = 50, cursor: Cursor = None
) -> Page[DeviceView]:
    """List the registered devices, newest first."""
    rows, following = page_of(session, select(Device), Device, limit, cursor)
    return Page(items=[device_view(device) for device in rows], next_cursor=following)


@router.get("/{name}", response_model=DeviceView, responses=responses(404))
def get_device(name: str, session: ReadSession, _principal: Reader, if_none_match: IfNoneMatch = None) -> Response:
    """Read a device by name or id."""
    return conditional(device_view(_get(session, name)), if_none_match)


@router.post("", status_code=201, response_model=DeviceView, responses=responses(409, 422))
def create_device(body: DeviceCreate, session: WriteSession, principal: Administrator, once: Once) -> JSONResponse:
    """Register a device. Jobs can name it at once; a worker that serves its queue does the measuring."""

    def create() -> JSONResponse:
        known = profiler_names()
        if body.profiler not in known:
            raise InvalidInputError(
                f"There is no profiler {body.profiler!r}.",
                hint=f"Installed: {', '.join(known)}.",
                errors=[{"field": "profiler", "message": f"is not one of {', '.join(known)}"}],
            )
        if session.exec(select(Device).where(Device.name == body.name)).first() is not None:
            raise ConflictError(f"The device {body.name} exists already.", hint="Choose another name, or delete it.")
        device = Device(name=body.name, profiler=body.profiler, options=body.options)
        session.add(device)
        audit.record(session, principal, "device.create", device.name, profiler=device.profiler)
        return created(device_view(device), f"/v1/devices/{device.name}")

    return once.run(session, principal, body, create)


@router.delete("/{name}", status_code=204, responses=responses(404, 409, 412))
def delete_device(name: str, session: WriteSession, principal: Administrator, if_match: IfMatch = None) -> None:
    """Remove a device that no job uses."""
    device = _get(session, name)
    check_unchanged(etag_of_view(device_view(device)), if_match)
    if session.exec(select(Job.id).where(Job.device_id == device.id).limit(1)).first() is not None:
        raise ConflictError(f"Jobs use the device {device.name}.", hint="Delete the jobs first.")
    session.delete(device)
    audit.record(session, principal, "device.delete", device.name)
