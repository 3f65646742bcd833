"""Peak memory that an artifact takes while it is loaded and run, in a process of its own."""

import resource
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from profilers.fresh.process import Waiting
from profilers.fresh.process import run_fresh
from profilers.fresh.request import FreshRequest
from profilers.protocol import Feeds
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Workload

_RESET_PEAK = "5"
"""Written to ``/proc/self/clear_refs``: start the high-water mark anew (proc(5))."""


def peak_memory(
    device: DeviceProfile,
    workload: Workload,
    artifact: Artifact,
    *,
    feeds: Feeds | None = None,
    waiting: Waiting | None = None,
) -> float:
    """Return the peak memory of loading ``artifact`` and running it once, in MiB.

    It is the rise of the resident set above the process with the runtime imported: what the model adds, not the
    interpreter and its libraries.

    Raises:
        RunnerError: The process failed.
        InvalidModelError: The artifact cannot be loaded.
    """
    request = FreshRequest(kind="memory", device=device, workload=workload, reference=artifact)
    result, _ = run_fresh(request, feeds, waiting)
    return float(result["peak_bytes"]) / 2**20


def peak_rise(action: Callable[[], None]) -> int:
    """Return by how many bytes the resident set rose at most while ``action`` ran."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text(_RESET_PEAK, encoding="ascii")
    before = _status_bytes("VmRSS")
    action()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(field: str) -> int:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
