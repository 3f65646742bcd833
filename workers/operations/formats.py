"""The form that candidates have on a device, and the number formats that its options come in. Light: no torch."""

from compressors.export.defaults import default_graph
from compressors.export.defaults import default_quantization
from compressors.recipe import Bits
from profilers.types import Capabilities
from search.options import Precision
from search.prepared import GraphDefaults


def device_defaults(profiler: str, capabilities: Capabilities) -> GraphDefaults:
    """Return the form in which a device runs any weights fastest, before its graphs have raced."""
    precision: Precision = "bf16" if "bf16" in capabilities.precisions else "f32"
    return GraphDefaults(
        graph=default_graph(profiler, {8} if precision == "f32" else set()),
        float_graph=default_graph(profiler, set()),
        quantization=default_quantization(profiler, saturating=capabilities.saturating_int8),
        precision=precision,
    )


def branch_bits(capabilities: Capabilities, defaults: GraphDefaults) -> tuple[Bits, ...]:
    """Return the bit-widths of branches, floating point first: 8 where that is the device's fastest arithmetic."""
    return (32, 8) if 8 in capabilities.bits and defaults.precision == "f32" else (32,)


def block_formats(capabilities: Capabilities, defaults: GraphDefaults) -> list[tuple[Bits, Precision]]:
    """Return the number formats that branches are timed in: the one that the search will mostly use, and plain fp32."""
    main: Bits = 8 if 8 in branch_bits(capabilities, defaults) else 32
    plain: tuple[Bits, Precision] = (32, "f32")
    return list(dict.fromkeys([(main, defaults.precision), plain]))
