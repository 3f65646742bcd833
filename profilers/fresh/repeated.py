"""Repeat a measurement in fresh processes and combine the results.

Loading the same file twice gives two models that differ in speed by several per cent (where their memory lies), and
that difference lasts as long as the process does. Repeating inside one process cannot see it.
"""

import math
import time
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from infra.errors import InvalidInputError
from profilers.fresh.memory import peak_memory
from profilers.fresh.process import Waiting
from profilers.fresh.process import run_fresh
from profilers.fresh.request import FreshRequest
from profilers.protocol import Feeds
from profilers.results import MeasuredCandidate
from profilers.samples import PairedSamples
from profilers.statistics import combine_processes
from profilers.types import Artifact
from profilers.types import DeviceProfile
from profilers.types import Effort
from profilers.types import Measurement
from profilers.types import Workload

LEAST_PROCESSES = 2
EXTRA_PROCESSES = 2
"""Further attempts, if some processes were too noisy."""


class _Deadline:
    """Whether there is time for one more of the same, as long as the one before took.

    Args:
        end: Moment of the monotonic clock.

    Attributes:
        last: Seconds that the last one took.
    """

    def __init__(self, end: float) -> None:
        self.end, self.last = end, 0.0

    def has_time_for_another(self) -> bool:
        return time.monotonic() + self.last <= self.end

    @contextmanager
    def timed(self) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.last = time.monotonic() - started


def measure_in_fresh_processes(
    device: DeviceProfile,
    workload: Workload,
    reference: Artifact,
    candidates: Mapping[str, Artifact],
    effort: Effort,
    seed: int = 0,
    *,
    processes: int = 3,
    feeds: Feeds | None = None,
    memory: bool = True,
    seconds: float | None = None,
    waiting: Waiting | None = None,
) -> dict[str, MeasuredCandidate]:
    """Measure candidates against the reference in several new processes, one after the other.

    Args:
        device: Where; its ``profiler`` names the plugin.
        workload: Shape and threads.
        reference: The dense model.
        candidates: Artifacts by name; all race together in each process. Several at once give narrower intervals
            than each alone, because they share what is known of the variance between processes; for a single one,
            five short processes give a narrower interval than three long ones.
        effort: Of each process; its time limit holds for each process.
        seed: Process ``p`` uses ``seed + p``.
        processes: How many results to combine, at least 2. A process in which a candidate came out ``noisy`` is
            repeated, at most twice altogether; noise is judged without looking at the ratio.
        feeds: Inputs; by default synthetic.
        memory: Also measure each candidate's peak memory, in one more process each.
        seconds: Time for all of it. Starting a process takes seconds on a CPU and much longer on a GPU: what would
            not end in time is left out, processes beyond the second and peak memory.
        waiting: Called about once a second while waiting; what it raises ends the measurement.

    Returns:
        For each name the combined measurement (:func:`profilers.statistics.combine_processes`) with ``processes``,
        ``fusion``, ``reference_fusion`` and ``peak_memory_mb`` filled, and the samples of all processes.

    Raises:
        InvalidInputError: ``processes`` is below 2, or there are no candidates.
        RunnerError: A process failed.
        InvalidModelError: An artifact cannot be loaded.
    """
    if processes < 2 or not candidates:
        raise InvalidInputError(
            "Repeating needs at least one candidate and two processes.", hint="Use measure() for a single process."
        )
    request = FreshRequest(
        kind="measure",
        device=device,
        workload=workload,
        reference=reference,
        candidates=dict(candidates),
        effort=effort,
    )
    attempts: list[list[MeasuredCandidate]] = []
    deadline = _Deadline(math.inf if seconds is None else time.monotonic() + seconds)
    for number in range(processes + EXTRA_PROCESSES):
        if number >= processes and _settled(attempts, processes):
            break
        if number >= LEAST_PROCESSES and not deadline.has_time_for_another():
            break
        with deadline.timed():
            attempts.append(_measure_once(request, number, seed, feeds, waiting))
    chosen = [_choose([attempt[index] for attempt in attempts], processes) for index in range(len(candidates))]
    combined = _combine(candidates, chosen)
    if memory:
        raced = max(result.measurement.seconds for result in attempts[-1])
        deadline.last = max(0.0, deadline.last - raced)  # what starting one takes
        combined = _with_memory(device, workload, candidates, combined, feeds, waiting, deadline)
    # Only the first process counted operators, and it may have been too noisy to be among the chosen.
    return {
        name: MeasuredCandidate(_with_operators(result.measurement, first.measurement), result.samples)
        for (name, result), first in zip(combined.items(), attempts[0], strict=True)
    }


def _measure_once(
    request: FreshRequest, number: int, seed: int, feeds: Feeds | None, waiting: Waiting | None
) -> list[MeasuredCandidate]:
    numbered = request.model_copy(update={"seed": seed + number, "operators": number == 0})
    result, samples = run_fresh(numbered, feeds, waiting)
    measurements = [Measurement.model_validate(item) for item in result["measurements"]]
    return [MeasuredCandidate(*pair) for pair in zip(measurements, samples, strict=True)]


def _settled(attempts: list[list[MeasuredCandidate]], processes: int) -> bool:
    """Return whether every candidate has enough results that are not noisy."""
    quiet = np.array([[result.measurement.status != "noisy" for result in attempt] for attempt in attempts])
    return bool((quiet.sum(axis=0) >= processes).all())


def _choose(results: list[MeasuredCandidate], processes: int) -> list[MeasuredCandidate]:
    """Take the first quiet results, and fill up with noisy ones."""
    return sorted(results, key=lambda result: result.measurement.status == "noisy")[:processes]


def _with_memory(
    device: DeviceProfile,
    workload: Workload,
    candidates: Mapping[str, Artifact],
    measured: Mapping[str, MeasuredCandidate],
    feeds: Feeds | None,
    waiting: Waiting | None,
    deadline: _Deadline,
) -> dict[str, MeasuredCandidate]:
    found = dict(measured)
    for name, artifact in candidates.items():
        if not deadline.has_time_for_another():
            break
        with deadline.timed():
            peak = peak_memory(device, workload, artifact, feeds=feeds, waiting=waiting)
        measurement = found[name].measurement.model_copy(update={"peak_memory_mb": peak})
        found[name] = MeasuredCandidate(measurement, found[name].samples)
    return found


def _combine(candidates: Iterable[str], chosen: list[list[MeasuredCandidate]]) -> dict[str, MeasuredCandidate]:
    ratios = combine_processes([[result.measurement.ratio for result in row] for row in chosen])
    combined = {}
    for name, row, ratio in zip(candidates, chosen, ratios, strict=True):
        parts = [result.measurement for result in row]
        update: dict[str, Any] = {
            "status": _status(parts),
            "ratio": ratio,
            "latency_ms": float(np.median([part.latency_ms for part in parts])),
            "reference_ms": float(np.median([part.reference_ms for part in parts])),
            "p90_ratio": float(np.median([part.p90_ratio for part in parts])),
            "control_ratio": combine_processes([[part.control_ratio for part in parts]])[0],
            "blocks": sum(part.blocks for part in parts),
            "dropped_blocks": sum(part.dropped_blocks for part in parts),
            "seconds": round(sum(part.seconds for part in parts), 3),
            "processes": len(parts),
            "facts": {
                **parts[0].facts,
                "notes": list(dict.fromkeys(note for part in parts for note in part.facts["notes"])),
                "reference_drift": max(part.facts["reference_drift"] for part in parts),
                "process_ratios": [part.ratio.model_dump() for part in parts],
                "process_statuses": [part.status for part in parts],
            },
        }
        samples = PairedSamples.concatenate([result.samples for result in row])
        combined[name] = MeasuredCandidate(parts[0].model_copy(update=update), samples)
    return combined


def _with_operators(measurement: Measurement, counted: Measurement) -> Measurement:
    return measurement.model_copy(
        update={"fusion": counted.fusion, "reference_fusion": counted.reference_fusion},
    )


def _status(parts: list[Measurement]) -> str:
    statuses = {part.status for part in parts}
    if "noisy" in statuses:
        return "noisy"
    return "slower_than_front" if statuses == {"slower_than_front"} else "ok"
