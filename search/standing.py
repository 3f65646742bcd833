"""A measured trial, with the numbers that count at the moment: final ones where there are any."""

from collections.abc import Iterable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

from infra.database.models import Trial
from profilers.types import Estimate
from profilers.types import Measurement
from profilers.types import Objective
from profilers.types import Quality
from search.candidates import baseline_of
from search.candidates import is_dense
from search.drop_model import DropModel
from search.drop_model import Evidence
from search.first_look import stop_of
from search.parity import exclusion
from search.records import loss
from search.reference_time import milliseconds
from search.reference_time import usual_time

LARGEST_HALF_WIDTH = 0.25
"""Relative half-width of an interval beyond which it decides nothing. Below it the guard's rule is enough, that
intervals must not overlap: what a busy machine shows to a tenth may be ten times as fast, and is then the answer."""

DENSE = "the dense model in its best graph"


@dataclass(frozen=True)
class Standing:
    """One measured trial.

    Attributes:
        trial_id: The trial.
        baseline: Name of the baseline, ``None`` for recipes.
        ratio: What the objective measures, as a fraction of the dense reference's, with its interval.
        latency_ms: Latency at the workload, the quantile or the mean of the objective: the reference's time in this job
            multiplied by the ratio (:mod:`search.reference_time`).
        loss: Quality objective, smaller is better; with labels the expected drop.
        drop: Drop of the metric against the dense model, with its interval.
        expected_drop: What is to be expected of more examples (:class:`search.drop_model.DropModel`).
        size_bytes: Stored size.
        confirmed: Whether the numbers are final: held-out quality, latency from fresh processes.
        status: Of the measurement: ``ok``, ``noisy`` or ``slower_than_front``.
        reliable: Whether the measurement may be compared with others.
        objective: What ``ratio`` compares; the same for all trials of a job.
        dense: It is no baseline, but nothing was removed or rounded: the dense model in the best graph.
    """

    trial_id: str
    baseline: str | None
    ratio: Estimate
    latency_ms: float
    loss: float
    drop: Estimate
    expected_drop: float
    size_bytes: int
    confirmed: bool
    status: str
    reliable: bool
    objective: Objective = "p50"
    dense: bool = False

    @property
    def is_rival(self) -> bool:
        """Whether others must beat it: users have it without compressing anything."""
        return self.baseline is not None or self.dense

    @property
    def name(self) -> str:
        """What it is called as a rival."""
        return self.baseline or DENSE

    @property
    def objectives(self) -> tuple[float, float, float]:
        """(ratio, loss, bytes), all minimised."""
        return self.ratio.value, self.loss, float(self.size_bytes)


def is_confirmed(trial: Trial) -> bool:
    """Whether the trial has final numbers."""
    return trial.holdout is not None and trial.final_measurement is not None


def reference_time(trials: Iterable[Trial]) -> float | None:
    """Return what the dense reference usually takes in a job, milliseconds; ``None`` before anything was measured."""
    rows = [row for trial in trials for row in (trial.measurement, trial.final_measurement) if row is not None]
    return usual_time((row["reference_ms"], row["status"] == "noisy") for row in rows)


def standing(trial: Trial, reference_ms: float, *, labelled: bool, final: bool) -> Standing | None:
    """Return the trial's standing, or ``None`` if it was not measured or no comparison with it is valid.

    Args:
        trial: The row.
        reference_ms: What the dense reference takes in the trial's job.
        labelled: Whether quality is a labelled metric.
        final: Take the final numbers where there are any; otherwise those of the search.
    """
    confirmed = final and is_confirmed(trial)
    quality_row = trial.holdout if confirmed else trial.quality
    measurement_row = trial.final_measurement if confirmed else trial.measurement
    if trial.state != "complete" or quality_row is None or measurement_row is None or trial.size_bytes is None:
        return None
    quality, measurement = Quality.model_validate(quality_row), Measurement.model_validate(measurement_row)
    if exclusion(trial, measurement) is not None:
        return None
    return Standing(
        trial_id=trial.id,
        baseline=baseline_of(trial.candidate),
        ratio=measurement.ratio,
        latency_ms=milliseconds(measurement, reference_ms),
        loss=loss(quality, labelled=labelled),
        drop=quality.drop,
        expected_drop=quality.drop.value,
        size_bytes=trial.size_bytes,
        confirmed=confirmed,
        status=measurement.status,
        reliable=is_reliable(measurement),
        objective=measurement.objective,
        dense=is_dense(trial.candidate),
    )


def is_reliable(measurement: Measurement) -> bool:
    """Whether the interval of a measurement can be compared with others.

    A machine that is too busy for the precision that was asked for still gives an honest interval, as long as the
    reference measured against itself comes out as 1: it is shown as ``noisy``, and only decides what it can.
    """
    if measurement.status != "noisy":
        return measurement.status == "ok"
    ratio, control = measurement.ratio, measurement.control_ratio
    return control.low <= 1.0 <= control.high and ratio.high - ratio.low <= 2 * LARGEST_HALF_WIDTH * ratio.value


def standings(trials: Iterable[Trial], *, labelled: bool, final: bool) -> list[Standing]:
    """Return the standings of all measured trials.

    Args:
        trials: The job's trials.
        labelled: Whether quality is a labelled metric.
        final: The job is over: keep confirmed numbers only, unless there are none. Numbers of the search and final
            numbers are taken on different examples and cannot be compared.
    """
    known = list(trials)
    usual = reference_time(known)
    if usual is None:
        return []
    found = [entry for trial in known if (entry := standing(trial, usual, labelled=labelled, final=final)) is not None]
    if labelled:
        found = _with_expected_drops(found, known)
    confirmed = [entry for entry in found if entry.confirmed]
    return confirmed if final and confirmed else found


def _with_expected_drops(entries: Sequence[Standing], trials: Sequence[Trial]) -> list[Standing]:
    """Judge each model by all the labels that it was evaluated on, and by what changed predictions cost others.

    That is its loss as well: on a few hundred examples the drops that were seen would strike good models off the front
    because a faster one was lucky.
    """
    searched = {trial.id: Evidence.of(Quality.model_validate(trial.quality)) for trial in trials if trial.quality}
    held_out = {trial.id: Evidence.of(Quality.model_validate(trial.holdout)) for trial in trials if trial.holdout}
    whole = [searched[trial.id] for trial in trials if trial.id in searched and not stop_of(trial.facts)]
    model = DropModel(whole, held_out.values())
    expected = [
        model.expected([found[entry.trial_id] for found in (searched, held_out) if entry.trial_id in found])
        for entry in entries
    ]
    return [replace(entry, expected_drop=drop, loss=drop) for entry, drop in zip(entries, expected, strict=True)]
