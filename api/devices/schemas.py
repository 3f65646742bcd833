"""Bodies of the devices resource."""

from datetime import datetime
from typing import Annotated
from typing import Any

from pydantic import BaseModel
from pydantic import ConfigDict
from pydantic import Field

from infra.database.models import Device

DeviceName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class DeviceCreate(BaseModel):
    """A device profile: which profiler, with which options."""

    model_config = ConfigDict(extra="forbid")

    name: DeviceName
    """Lower case letters, digits, dot, dash and underscore; also the name of its queue."""
    profiler: Annotated[str, Field(min_length=1, max_length=100)]
    """Name of an installed profiler plugin, such as ``onnxruntime``."""
    options: Annotated[dict[str, Any], Field(max_length=100)] = {}
    """Options of the plugin."""


class DeviceView(BaseModel):
    """A registered device."""

    id: str
    name: str
    profiler: str
    options: dict[str, Any]
    capabilities: dict[str, Any]
    """What the profiler found that the device can run; empty until its worker has looked."""
    facts: dict[str, Any]
    """The machine: processor, runtime, versions."""
    created_at: datetime


def device_view(device: Device) -> DeviceView:
    """Describe a device."""
    return DeviceView(
        id=device.id,
        name=device.name,
        profiler=device.profiler,
        options=device.options,
        capabilities=device.capabilities,
        facts=device.facts,
        created_at=device.created_at,
    )
