"""Describes registered devices as this host sees them: ``python -m workers.device_description NAME...``.

What the runtime can do here, and which machine it is, becomes part of the device's row, where the API, ``paretune
devices`` and later measurements look for it. To look may import the runtime, so it is done in a process of its own.
"""

import argparse
import logging
import sys
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic_core import to_jsonable_python
from sqlmodel import Session
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

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """What a host found out about a device.

    Attributes:
        capabilities: What it can run; not available, with the reason, where it cannot be used here.
        facts: The machine, and what the plugin knows of the device itself.
    """

    capabilities: Capabilities
    facts: JsonObject


def look_at(device: DeviceProfile, *, closely: bool = True) -> Description:
    """Find out whether this host can measure on a device, and what that is; a plugin may fail in any way.

    Args:
        device: The device.
        closely: Whether to ask the plugin for the device itself too, which may import its runtime.
    """
    capabilities = Capabilities(profiler=device.profiler, available=False)
    facts = machine_facts()
    try:
        profiler = get_profiler(device.profiler)
        capabilities = Capabilities.model_validate(profiler.describe())
        if closely and capabilities.available and isinstance(profiler, HasDeviceFacts):
            facts |= to_jsonable_python(profiler.device_facts(device))
    except ParetuneError as error:
        reason = f"{error.message} {error.hint}".strip()
    except Exception as error:
        logger.warning("the profiler %r fails", device.profiler, exc_info=True)
        reason = f"The profiler {device.profiler!r} fails: {type(error).__name__}."
    else:
        return Description(capabilities, facts)
    return Description(capabilities.model_copy(update={"available": False, "reason": reason}), facts)


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


def locked(session: Session, name: str) -> Device | None:
    """Return the row of a device, which nobody else changes until this transaction ends."""
    return session.exec(select(Device).where(Device.name == name).with_for_update()).one_or_none()


def describe_devices(database: Database, names: Collection[str], *, only_host: bool) -> dict[str, Capabilities]:
    """Look at those of the named devices that are registered, and write down what they are.

    Returns:
        What was found here, by name.
    """
    with database.read_session() as session:
        rows = session.exec(select(Device).where(col(Device.name).in_(names)).order_by(col(Device.name)))
        profiles = [profile_of(row) for row in rows]
    found = {}
    for profile in profiles:
        seen = look_at(profile)  # which takes seconds: not in a transaction
        with database.write_session() as session:
            device = locked(session, profile.name)
            if device is not None and profile_of(device) == profile:  # not another one by now
                note(device, seen, only_host=only_host)
        found[profile.name] = seen.capabilities
    return found


def tell(found: Mapping[str, Capabilities], good: str) -> None:
    """Print a line for each device that was looked at; ``good``: the word for one that is available here."""
    for name, capabilities in found.items():
        state = good if capabilities.available else f"not available on this host: {capabilities.reason}"
        sys.stdout.write(f"{name}: {state}\n")


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
    tell(found, "available")


if __name__ == "__main__":
    main()
