"""Decisions of the CUDA profiler, apart from the GPU: availability, which blocks count, how to warm up."""

from dataclasses import dataclass

THROTTLE_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's clock event reasons (``nvmlClocksEventReason*``) under which a time is not that of the model."""

MIN_CLOCK_SHARE = 0.90


def availability(torch_version: str | None, *, device_nodes: bool) -> tuple[bool, str]:
    """Say whether the profiler can run, and why not.

    Args:
        torch_version: Version of the installed torch, or ``None``.
        device_nodes: Whether the NVIDIA driver has made devices visible to this process.
    """
    if torch_version is None:
        return False, "torch is not installed: pip install torch"
    if "+cpu" in torch_version:
        return False, f"torch {torch_version} is built without CUDA: install a CUDA build from pytorch.org"
    if not device_nodes:
        return False, "no NVIDIA GPU is visible here: check nvidia-smi, or the container's GPU option"
    return True, ""


def throttling(reasons: int) -> list[str]:
    """Name the bits of NVML's clock event reasons that spoil a measurement."""
    return [text for bit, text in THROTTLE_REASONS.items() if reasons & bit]


@dataclass(frozen=True)
class GpuState:
    """State of the GPU at one moment.

    Attributes:
        sm_clock_mhz: clock of the multiprocessors; ``None`` where unknown.
        reasons: NVML's clock event reasons, a bit mask.
    """

    sm_clock_mhz: int | None = None
    reasons: int = 0


def is_disturbed(before: GpuState, after: GpuState, usual_clock_mhz: float | None) -> bool:
    """Say whether a block between two states cannot be used.

    Args:
        before: State before the block.
        after: State after it.
        usual_clock_mhz: Median clock of the blocks so far, or ``None``.
    """
    if throttling(before.reasons | after.reasons):
        return True
    clocks = [state.sm_clock_mhz for state in (before, after) if state.sm_clock_mhz is not None]
    return usual_clock_mhz is not None and any(clock < MIN_CLOCK_SHARE * usual_clock_mhz for clock in clocks)
