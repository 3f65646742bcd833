"""Describes registered devices as this host sees them: ``python -m workers.device_description NAME...``.

What the runtime can do here, and which machine it is, becomes part of the device's row, where the API, ``paretune
devices`` and later measurements look for it. To look may import the runtime, so it is done in a process of its own.
"""

import argparse
import sys
from collections.abc import Collection
from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import col
from sqlmodel import select

from infra.database.engine import Database
from infra.database.models import Device
from infra.database.models import JsonObject
from infra.errors import ParetuneError
from infra.settings import load_settings
from profilers.host import machine_facts
from profilers.protocol import HasDeviceFacts
from profilers.registry import get_profiler
from profilers.types import Capabilities
from profilers.types import DeviceProfile


@dataclass(frozen=True)
class Description:
    """What a host found out about a device.

    Attributes:
        capabilities: What it can run; not available, with the reason, where it cannot be used here.
        facts: The machine, and what the plugin knows of the device itself.
    """

    capabilities: Capabilities
    facts: JsonObject


def look_at(device: DeviceProfile) -> Description:
    """Find out whether this host can measure on a device, and what that is."""
    try:
        profiler = get_profiler(device.profiler)
    except ParetuneError as error:
        unknown = Capabilities(profiler=device.profiler, available=False, reason=error.message)
        return Description(unknown, machine_facts())
    capabilities, facts = profiler.describe(), machine_facts()
    if capabilities.available and isinstance(profiler, HasDeviceFacts):
        try:
            facts |= profiler.device_facts(device)
        except ParetuneError as error:
            reason = f"{error.message} {error.hint}".strip()
            capabilities = capabilities.model_copy(update={"available": False, "reason": reason})
    return Description(capabilities, facts)


def note(device: Device, found: Description, *, only_host: bool) -> bool:
    """Put a description into the device's row, unless it says less than another host has said.

    Args:
        device: The row.
        found: What this host found.
        only_host: No other host measures on it. Else a device that is not available here stays as it is described,
            because another host may have it.

    Returns:
        Whether the row has it now.
    """
    if not (found.capabilities.available or only_host or not device.capabilities):
        return False
    device.capabilities = found.capabilities.model_dump(mode="json")
    device.facts = found.facts
    return True


def profile_of(device: Device) -> DeviceProfile:
    """Return the device as its plugin wants it."""
    return DeviceProfile(name=device.name, profiler=device.profiler, options=device.options)


def describe_devices(database: Database, names: Collection[str], *, only_host: bool) -> dict[str, Capabilities]:
    """Look at those of the named devices that are registered, and write down what they are.

    Returns:
        What was found here, by name.
    """
    with database.read_session() as session:
        rows = session.exec(select(Device).where(col(Device.name).in_(names)).order_by(col(Device.name)))
        profiles = [profile_of(row) for row in rows]
    found = {profile.name: look_at(profile) for profile in profiles}  # which takes seconds: not in a transaction
    with database.write_session() as session:
        for row in session.exec(select(Device).where(col(Device.name).in_(list(found)))):
            note(row, found[row.name], only_host=only_host)
            session.add(row)
    return {name: description.capabilities for name, description in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Describe devices in the database of the settings."""
    parser = argparse.ArgumentParser(prog="python -m workers.device_description", description=__doc__)
    parser.add_argument("names", nargs="+", metavar="NAME", help="registered devices; others are left out")
    names = parser.parse_args(arguments).names
    settings = load_settings()
    database = Database(settings.database_url)
    try:
        found = describe_devices(database, names, only_host=settings.embedded)
    except ParetuneError as error:
        sys.exit(error.explain())
    finally:
        database.dispose()
    for name, capabilities in found.items():
        state = "available" if capabilities.available else f"not available on this host: {capabilities.reason}"
        sys.stdout.write(f"{name}: {state}\n")


if __name__ == "__main__":
    main()
