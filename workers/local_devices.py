"""Registers the devices of this host: ``python -m workers.local_devices [NAME...]``.

Every profiler plugin that is available here becomes a device ``local-...``; what is registered already is refreshed.
With names, only these devices are looked at: on a host that shares its database with hosts that have the others.
"""

import argparse
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import replace

from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Device
from infra.settings import load_settings
from profilers.types import Capabilities
from workers.device_description import locked
from workers.device_description import look_at
from workers.device_description import note
from workers.device_description import profile_of
from workers.device_description import tell

LOCAL_DEVICES = {"local-cpu": "onnxruntime", "local-openvino": "openvino", "local-cuda": "torch_cuda"}
"""Names of the devices of a host and the profilers behind them."""


def register_local_devices(
    database: Database, *, only_host: bool, names: Collection[str] = tuple(LOCAL_DEVICES)
) -> dict[str, Capabilities]:
    """Write a row for each profiler that is available on this host, one after the other.

    Args:
        database: Where to.
        only_host: No other host measures under these names; see :func:`workers.device_description.note`. The plugins
            are not asked for the devices themselves then, because that may hang and the service waits for this; the
            worker asks them when it starts.
        names: The devices to look at.

    Returns:
        What was found here, by name; rows were written for what is available.
    """
    found = {}
    for name in names:
        with database.read_session() as session:
            known = session.exec(select(Device).where(Device.name == name)).one_or_none()
        profile = profile_of(known or _new(name))
        seen = look_at(profile, closely=not only_host)  # which takes seconds: not in a transaction
        with database.write_session() as session:
            known = locked(session, name)
            device = known or _new(name)
            if profile_of(device) == profile and (known or seen.capabilities.available):
                # What a plugin said of the device itself stays until the worker looks closely.
                noted = replace(seen, facts=device.facts | seen.facts) if only_host else seen
                note(device, noted, only_host=only_host)
                session.add(device)
        found[name] = seen.capabilities
    return found


def _new(name: str) -> Device:
    return Device(name=name, profiler=LOCAL_DEVICES[name])


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
    found = register_local_devices(database, only_host=settings.embedded, names=names)
    database.dispose()
    tell(found, "registered")


if __name__ == "__main__":
    main()
