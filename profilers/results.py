"""From blocks to a :class:`profilers.types.Measurement`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal

import numpy as np

from profilers.blocks import Block
from profilers.pooled import level
from profilers.pooled import pooled_ratio
from profilers.protocol import Health
from profilers.samples import PairedSamples
from profilers.samples import paired_samples
from profilers.statistics import Floats
from profilers.statistics import ratio_estimate
from profilers.types import Effort
from profilers.types import Estimate
from profilers.types import Measurement
from profilers.types import Statistic

REFERENCE = "@reference"
CONTROL = "@control"

MIN_JUDGED = 8
"""Clean blocks below which no interval is judged."""
_DRIFT_WINDOW = 10
_MAX_DRIFT = 0.10


@dataclass(frozen=True)
class MeasuredCandidate:
    """A measurement and the raw samples that it was computed from."""

    measurement: Measurement
    samples: PairedSamples


@dataclass(frozen=True)
class Run:
    """Everything that one race left behind."""

    blocks: tuple[Block, ...]
    health: tuple[Health, ...]
    effort: Effort
    seed: int
    retreats: int
    bursts: dict[str, int]
    session_facts: dict[str, Any]
    model_facts: dict[str, dict[str, Any]]


def log_ratios(blocks: Sequence[Block], name: str) -> Floats:
    """Return ``ln(candidate / reference)`` for the blocks in which ``name`` ran, in order.

    Where the control ran too, a candidate is compared with the geometric mean of both runs of the reference, which
    halves the reference's share of the variance; the control itself with the other run.
    """
    values = []
    for block in blocks:
        time = block.time_of(name)
        if time is None:
            continue
        reference = math.log(block.run_ns[block.names.index(REFERENCE)])
        control = block.time_of(CONTROL)
        if control is not None and name != CONTROL:
            reference = (reference + math.log(control)) / 2
        values.append(math.log(time) - reference)
    return np.array(values, dtype=np.float64)


def estimate(blocks: Sequence[Block], name: str, seed: int, statistic: Statistic) -> Estimate:
    """Return the ratio of ``name`` to the reference over the blocks in which it ran, at least two, with its interval.

    ``p50`` is the median of the ratios of the blocks: it cancels drift completely. For the mean and the tails the runs
    of all blocks are pooled, because a tail is seldom met in a single block.
    """
    if statistic == "p50":
        return ratio_estimate(log_ratios(blocks, name), seed)
    return pooled_ratio(visits(blocks, name, name), visits(blocks, REFERENCE, name), statistic, seed)


def visits(blocks: Sequence[Block], name: str, beside: str) -> Floats:
    """Return the times of ``name`` in the blocks in which ``beside`` ran as well, ``[blocks, visits]``, nanoseconds."""
    return np.array([block.visits_of(name) for block in blocks if beside in block.names], dtype=np.float64)


def clean_estimate(blocks: Sequence[Block], name: str, seed: int, statistic: Statistic) -> Estimate | None:
    """Return the ratio over clean blocks with its interval; ``None`` with fewer than :data:`MIN_JUDGED` of them."""
    clean = [block for block in blocks if block.clean]
    judged = sum(name in block.names for block in clean) >= MIN_JUDGED
    return estimate(clean, name, seed, statistic) if judged else None


def summarise(
    run: Run, name: str, status: Literal["ok", "noisy", "slower_than_front"], seconds: float
) -> MeasuredCandidate:
    """Build the measurement of one candidate.

    With too few clean blocks for an interval, all blocks are used and the facts say so; the status is ``noisy`` then.
    """
    samples = paired_samples(run.blocks, name, REFERENCE, CONTROL)
    usable = [block for block in run.blocks if block.clean]
    all_blocks = len(log_ratios(usable, name)) < MIN_JUDGED or len(log_ratios(usable, CONTROL)) < 2
    if all_blocks:
        usable = list(run.blocks)
    mask = np.ones(len(samples.clean), dtype=np.bool_) if all_blocks else samples.clean
    candidate, reference = samples.candidate_visits_ns[mask], samples.reference_visits_ns[mask]
    statistic = run.effort.statistic
    measurement = Measurement(
        status=status,
        objective="throughput" if statistic == "mean" else statistic,
        ratio=estimate(usable, name, run.seed, statistic),
        latency_ms=level(candidate, statistic) / 1e6,
        reference_ms=level(reference, statistic) / 1e6,
        p90_ratio=level(candidate, "p90") / level(reference, "p90"),
        control_ratio=estimate(usable, CONTROL, run.seed, statistic),
        blocks=int(mask.sum()),
        dropped_blocks=int((~samples.clean).sum()),
        seconds=round(seconds, 3),
        facts=_facts(run, name, samples, all_blocks=all_blocks),
    )
    return MeasuredCandidate(measurement, samples)


def _facts(run: Run, name: str, samples: PairedSamples, *, all_blocks: bool) -> dict[str, Any]:
    drift = reference_drift(run.blocks)
    notes = [note for health in run.health for note in health.notes]
    if all_blocks:
        notes.append("Too few undisturbed blocks: all blocks were used.")
    if drift > _MAX_DRIFT:
        notes.append(f"The reference drifted by {drift:.0%} during the run (throttling, or others on the machine).")
    spins = [health.spin_ns for health in run.health if health.spin_ns is not None]
    return {
        **run.session_facts,
        "models": {"candidate": run.model_facts[name], "reference": run.model_facts[REFERENCE]},
        "effort": run.effort.model_dump(),
        "seed": run.seed,
        "retreats": run.retreats,
        "burst": {"candidate": run.bursts[name], "reference": run.bursts[REFERENCE]},
        "cpu_ratio": _cpu_ratio(samples),
        "reference_drift": round(drift, 4),
        "spin_spread": round(max(spins) / min(spins) - 1, 4) if spins else None,
        "pressure_us": _rise([health.pressure_us for health in run.health]),
        "stolen_ms": _rise([health.stolen_ms for health in run.health]),
        "notes": notes,
    }


def reference_drift(blocks: Sequence[Block]) -> float:
    """Return how far the reference's median over any ten clean blocks strays from its overall median, relatively."""
    times = np.array([block.time_of(REFERENCE) for block in blocks if block.clean], dtype=np.float64)
    if len(times) < _DRIFT_WINDOW:
        return 0.0
    windows = np.lib.stride_tricks.sliding_window_view(times, _DRIFT_WINDOW)
    return float(np.abs(np.median(windows, axis=1) / np.median(times) - 1).max())


def _cpu_ratio(samples: PairedSamples) -> float | None:
    """Return the ratio of CPU times: a cross-check that interruptions cannot touch."""
    known = (samples.candidate_cpu_ns > 0) & (samples.reference_cpu_ns > 0)
    if not known.any():
        return None
    return round(float(np.median(samples.candidate_cpu_ns[known] / samples.reference_cpu_ns[known])), 5)


def _rise(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(known[-1] - known[0], 3) if known else None
