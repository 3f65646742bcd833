"""Registers the devices of this host: ``python -m workers.local_devices``.

Every profiler plugin that is available here becomes a device ``local-...``; what is registered already is refreshed.
"""

from sqlmodel import Session
from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Device
from infra.settings import load_settings
from profilers.host import machine_facts
from profilers.registry import get_profiler
from profilers.types import Capabilities

LOCAL_DEVICES = {"local-cpu": "onnxruntime", "local-openvino": "openvino", "local-cuda": "torch_cuda"}
"""Names of the devices of a host and the profilers behind them."""


def register_local_devices(session: Session) -> list[str]:
    """Write a row for each profiler that is available on this host; returns the names."""
    names = []
    for name, profiler in LOCAL_DEVICES.items():
        capabilities = get_profiler(profiler).describe()
        row = session.exec(select(Device).where(Device.name == name)).one_or_none()
        if not capabilities.available and row is None:
            continue
        session.add(_described(row or Device(name=name, profiler=profiler), capabilities))
        names.append(name)
    return names


def _described(device: Device, capabilities: Capabilities) -> Device:
    device.capabilities = capabilities.model_dump(mode="json")
    device.facts = machine_facts()
    return device


def main() -> None:
    """Register the devices in the database of the settings."""
    database = Database(load_settings().database_url)
    with database.write_session() as session:
        register_local_devices(session)
    database.dispose()


if __name__ == "__main__":
    main()
