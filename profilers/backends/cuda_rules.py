"""Decisions of the CUDA profiler, apart from the GPU: availability, its facts, which blocks count, how to warm up."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

THROTTLE_REASONS = {
    0x04: "software power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""NVML's clock event reasons (``nvmlClocksEventReason*``) under which a time is not that of the model."""

MIN_CLOCK_SHARE = 0.90
WARM_UP_SECONDS = 3.0
"""A GPU that was idle raises its clocks in steps; it works for at least so long before anything counts."""
LONGEST_WARM_UP_SECONDS = 10.0
"""Clocks that do not settle within this time will not; the rule for blocks deals with them."""
CLOCK_AGREEMENT = 0.02


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


def gpu_facts(properties: Any, driver: str | None, cuda: str | None) -> dict[str, Any]:
    """Say which GPU it is.

    Args:
        properties: As ``torch.cuda.get_device_properties`` returns them.
        driver: Version of the NVIDIA driver; ``None`` where unknown.
        cuda: Version of CUDA that torch was built with.

    Returns:
        ``gpu`` (its name), ``gpu_memory`` (bytes), ``compute_capability``, ``driver``, ``cuda``.
    """
    return {
        "gpu": str(properties.name),
        "gpu_memory": int(properties.total_memory),
        "compute_capability": f"{properties.major}.{properties.minor}",
        "driver": driver,
        "cuda": cuda,
    }


@dataclass(frozen=True)
class GpuState:
    """State of the GPU at one moment.

    Attributes:
        sm_clock_mhz: clock of the multiprocessors; ``None`` where unknown.
        reasons: NVML's clock event reasons, a bit mask.
        foreign: compute processes of others on the GPU.
    """

    sm_clock_mhz: int | None = None
    reasons: int = 0
    foreign: int = 0


def is_warm(seconds: float, clocks: Sequence[int | None]) -> bool:
    """Say whether a GPU that has worked for a while may be measured on.

    Args:
        seconds: How long it has worked.
        clocks: Its clock in MHz at intervals during that time; ``None`` where unknown.
    """
    if seconds < WARM_UP_SECONDS or len(clocks) < 2:
        return False
    before, now = clocks[-2:]
    if seconds >= LONGEST_WARM_UP_SECONDS or before is None or now is None:
        return True
    return abs(now - before) <= CLOCK_AGREEMENT * before


def is_disturbed(before: GpuState, after: GpuState, usual_clock_mhz: float | None, foreign_at_open: int = 0) -> bool:
    """Say whether a block between two states cannot be used.

    Args:
        before: State before the block.
        after: State after it.
        usual_clock_mhz: Median clock of the blocks so far, or ``None``.
        foreign_at_open: Compute processes of others when the session was opened. One that is always there may be idle,
            and slows all models alike; one that comes slows some blocks only.
    """
    if throttling(before.reasons | after.reasons) or max(before.foreign, after.foreign) > foreign_at_open:
        return True
    clocks = [state.sm_clock_mhz for state in (before, after) if state.sm_clock_mhz is not None]
    return usual_clock_mhz is not None and any(clock < MIN_CLOCK_SHARE * usual_clock_mhz for clock in clocks)
