"""Number formats that a device's options come in. Light: no torch."""

from compressors.recipe import Bits
from profilers.types import Capabilities
from search.prepared import GraphDefaults


def branch_bits(capabilities: Capabilities, defaults: GraphDefaults) -> tuple[Bits, ...]:
    """Return the bit-widths of branches, floating point first: 8 where that is the device's fastest arithmetic."""
    return (32, 8) if 8 in capabilities.bits and defaults.precision == "f32" else (32,)
