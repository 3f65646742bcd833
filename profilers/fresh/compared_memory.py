"""Peak memory of several models against the reference, each in processes of its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profilers.fresh.memory import peak_memory
from profilers.fresh.process import Waiting
from profilers.protocol import Feeds
from profilers.statistics import UPPER
from profilers.statistics import contains_one
from profilers.statistics import half_width
from profilers.statistics import student_quantile
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Estimate
from profilers.types import Measurement
from profilers.types import Workload

LEAST_HALF_WIDTH = 0.002
"""Relative half-width that no interval falls below: two processes often agree to the page, which proves nothing."""
TARGET_HALF_WIDTH = 0.03
"""Relative half-width above which a comparison is ``noisy``."""

Samples = Sequence[float]
"""Peak memory in MiB, one value for each process."""


@dataclass(frozen=True)
class ReferenceMemory:
    """The dense model's peak memory, taken twice: the second time as its own control.

    Attributes:
        samples: MiB, one for each process.
        control: The same again.
    """

    samples: tuple[float, ...]
    control: tuple[float, ...]


def repeat_peak_memory(
    device: DeviceProfile,
    workload: Workload,
    artifact: Artifact,
    processes: int,
    *,
    feeds: Feeds | None = None,
    waiting: Waiting | None = None,
) -> tuple[float, ...]:
    """Return the peak memory of an artifact in several fresh processes, MiB.

    Raises:
        RunnerError: A process failed.
        InvalidModelError: The artifact cannot be loaded.
    """
    return tuple(
        peak_memory(device, workload, artifact, feeds=feeds, waiting=waiting) for _ in range(max(2, processes))
    )


def reference_memory(
    device: DeviceProfile,
    workload: Workload,
    reference: Artifact,
    processes: int,
    *,
    feeds: Feeds | None = None,
    waiting: Waiting | None = None,
) -> ReferenceMemory:
    """Measure the reference and its control. Memory does not drift: one measurement serves many candidates."""
    found = repeat_peak_memory(device, workload, reference, 2 * max(2, processes), feeds=feeds, waiting=waiting)
    return ReferenceMemory(found[0::2], found[1::2])


def memory_ratio(candidate: Samples, reference: Samples) -> Estimate:
    """Return the ratio of the geometric means with a 95 % interval (Welch's t on the logarithms).

    Args:
        candidate: MiB, at least two processes.
        reference: MiB, at least two processes.
    """
    logs = [np.log(np.maximum(values, 1e-3)) for values in (candidate, reference)]
    shares = [float(values.var(ddof=1)) / len(values) for values in logs]
    middle, variance = float(logs[0].mean() - logs[1].mean()), sum(shares)
    half = LEAST_HALF_WIDTH
    if variance > 0:
        degrees = variance**2 / sum(share**2 / (len(values) - 1) for share, values in zip(shares, logs, strict=True))
        half = max(half, student_quantile(UPPER, degrees) * math.sqrt(variance))
    return Estimate(value=math.exp(middle), low=math.exp(middle - half), high=math.exp(middle + half))


def by_memory(
    timed: Measurement, candidate: Samples, reference: ReferenceMemory, give_up_above: float | None = None
) -> Measurement:
    """Return a measurement whose ratio is that of the peak memory; times stay in it for orientation.

    Args:
        timed: The candidate's times.
        candidate: Its peak memory.
        reference: The dense model's.
        give_up_above: Ratio above which a candidate cannot matter.
    """
    ratio, control = memory_ratio(candidate, reference.samples), memory_ratio(reference.control, reference.samples)
    status = "noisy"
    if give_up_above is not None and ratio.low > give_up_above:
        status = "slower_than_front"
    elif half_width(ratio) <= TARGET_HALF_WIDTH and contains_one(control):
        status = "ok"
    taken = {"candidate": candidate, "reference": reference.samples, "control": reference.control}
    samples = {name: [round(value, 3) for value in values] for name, values in taken.items()}
    return timed.model_copy(
        update={
            "status": status,
            "objective": "peak_memory",
            "ratio": ratio,
            "control_ratio": control,
            "peak_memory_mb": float(np.median(candidate)),
            "reference_memory_mb": float(np.median(reference.samples)),
            "processes": len(candidate),
            "facts": {**timed.facts, "memory_mb": samples, "time_ratio": timed.ratio.model_dump()},
        }
    )
