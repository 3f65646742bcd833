"""How long the dense reference takes, one time for a whole job: what turns ratios into milliseconds.

The milliseconds of a single measurement move with the machine's load and clock; its ratio to the reference beside it
does not. With one time for all of a job's models, what is judged and shown in milliseconds is as good as the ratios.
"""

from collections.abc import Iterable
from statistics import median

from profilers.types import Measurement
from search.requests import Goal
from search.study import TrialRecord


def usual_time(times: Iterable[tuple[float, bool]]) -> float | None:
    """Return the median time of the reference in undisturbed measurements, or in all where none was.

    Args:
        times: ``(milliseconds, whether the measurement was noisy)`` for each measurement of the job.

    Returns:
        Milliseconds; ``None`` without a measurement.
    """
    known = list(times)
    clean = [time for time, noisy in known if not noisy] or [time for time, _ in known]
    return median(clean) if clean else None


def usual_time_of(trials: Iterable[TrialRecord]) -> float | None:
    """Return :func:`usual_time` by the trials' measurements."""
    return usual_time((trial.reference_ms, trial.noisy) for trial in trials if trial.reference_ms is not None)


def milliseconds(measurement: Measurement, reference_ms: float) -> float:
    """Return the time of a model of which the dense reference usually takes ``reference_ms``."""
    if measurement.objective == "peak_memory":  # what its ratio compares is no time
        return reference_ms * measurement.latency_ms / measurement.reference_ms
    return reference_ms * measurement.ratio.value


def ratio_ceiling(goal: Goal, trials: Iterable[TrialRecord]) -> float | None:
    """Return the goal's latency ceiling as a fraction of the reference's time.

    Returns:
        ``None`` without such a goal, or while no trial was measured.
    """
    if goal.max_latency_ms is None:
        return None
    usual = usual_time_of(trials)
    return None if usual is None else goal.max_latency_ms / usual
