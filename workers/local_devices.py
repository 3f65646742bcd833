"""Registers the devices of this host: ``python -m workers.local_devices [NAME...]``.

Every profiler plugin that is available here becomes a device ``local-...``; what is registered already is refreshed.
With names, only these devices are looked at: on a host that shares its database with hosts that have the others.
"""

import argparse
import sys
from collections.abc import Collection
from collections.abc import Sequence

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


def register_local_devices(
    session: Session, *, only_host: bool, names: Collection[str] = tuple(LOCAL_DEVICES)
) -> dict[str, Capabilities]:
    """Write a row for each profiler that is available on this host.

    Args:
        session: Of a transaction that may write.
        only_host: No other host measures under these names. Else a device that is not available here stays as it is
            described, because another host may have it.
        names: The devices to look at.

    Returns:
        What was found here, by name; rows were written for what is available.
    """
    found = {}
    for name in names:
        profiler = LOCAL_DEVICES[name]
        found[name] = capabilities = get_profiler(profiler).describe()
        row = session.exec(select(Device).where(Device.name == name)).one_or_none()
        if capabilities.available or (only_host and row is not None):
            session.add(_described(row or Device(name=name, profiler=profiler), capabilities))
    return found


def _described(device: Device, capabilities: Capabilities) -> Device:
    device.capabilities = capabilities.model_dump(mode="json")
    device.facts = machine_facts()
    return device


def main(arguments: Sequence[str] | None = None) -> None:
    """Register the devices in the database of the settings."""
    parser = argparse.ArgumentParser(prog="python -m workers.local_devices", description=__doc__)
    known = ", ".join(LOCAL_DEVICES)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"devices to look at, of {known} (default: all)")
    names = parser.parse_args(arguments).names or list(LOCAL_DEVICES)
    for name in names:
        if name not in LOCAL_DEVICES:
            parser.error(f"{name!r} is not one of {known}")
    settings = load_settings()
    database = Database(settings.database_url)
    with database.write_session() as session:
        found = register_local_devices(session, only_host=settings.embedded, names=names)
    database.dispose()
    for name, capabilities in found.items():
        state = "registered" if capabilities.available else f"not available on this host: {capabilities.reason}"
        sys.stdout.write(f"{name}: {state}\n")


if __name__ == "__main__":
    main()
