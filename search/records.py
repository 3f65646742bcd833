"""Reads trials from the database in the form that strategies and decisions use."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from datetime import datetime

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.engine import sees_committed_rows_only
from infra.database.models import Trial
from profilers.types import Measurement
from profilers.types import Quality
from search.candidates import recipe_of
from search.drop_model import DropModel
from search.drop_model import Evidence
from search.first_look import drop_model
from search.first_look import stop_of
from search.parity import unfused
from search.study import Outcome
from search.study import TrialRecord

_KEPT = 64
_ROWS_AT_ONCE = 200
"""Databases limit the number of parameters of a statement."""
_Key = tuple[str, datetime | None]
_histories: OrderedDict[tuple[str, bool], "_History"] = OrderedDict()


@dataclass
class _History:
    """Ended trials of a job that this process has read already.

    Attributes:
        settled: The first trials of the job, all of them ended for good, by number.
        ended: Other ended trials by id and end: in an open transaction an end may still be undone.
        weighed: The first of ``settled`` with the drops that ``curve`` lets expect.
        curve: See :class:`search.drop_model.DropModel`.
    """

    settled: list[TrialRecord] = field(default_factory=list)
    ended: dict[_Key, TrialRecord] = field(default_factory=dict)
    weighed: list[TrialRecord] = field(default_factory=list)
    curve: tuple[float, ...] | None = None


def job_records(session: Session, job_id: str, *, labelled: bool, expected_drops: bool = True) -> list[TrialRecord]:
    """Return all trials of a job by number, with the numbers of the search.

    What a trial was found to be does not change after its end, so a process reads each ended trial once. Of the first
    trials of a job, up to the oldest that is under way, later calls fetch nothing at all: numbers have no gaps.

    Args:
        session: Any session.
        job_id: The job.
        labelled: Whether quality is a labelled metric.
        expected_drops: Whether to give the drops that are to be expected of more labelled examples
            (:class:`search.drop_model.DropModel`) in place of those that were seen; for who looks at none, it is waste.
    """
    history = _histories.pop((job_id, labelled), None) or _History()
    _histories[job_id, labelled] = history
    later = select(Trial.id, Trial.finished_at).where(Trial.job_id == job_id, Trial.number >= len(history.settled))
    keys: list[_Key] = [(row[0], row[1]) for row in session.exec(later.order_by(col(Trial.number)))]
    missing = [key[0] for key in keys if key not in history.ended]
    rows = select(Trial).where(Trial.job_id == job_id)
    if len(missing) < _ROWS_AT_ONCE:
        rows = rows.where(col(Trial.id).in_(missing))
    fresh = {trial.id: read_record(trial, labelled=labelled) for trial in session.exec(rows)} if missing else {}
    records = [history.ended.get(key) or fresh[key[0]] for key in keys]
    history.ended = {key: record for key, record in zip(keys, records, strict=True) if record.finished_at is not None}
    found = _expected(history, records) if expected_drops else [*history.settled, *records]
    if sees_committed_rows_only(session):
        _settle(history, keys, records)
    while len(_histories) > _KEPT:
        _histories.popitem(last=False)
    return found


def _settle(history: _History, keys: Sequence[_Key], records: Sequence[TrialRecord]) -> None:
    for key, record in zip(keys, records, strict=True):
        if key not in history.ended or record.number != len(history.settled):
            return
        history.settled.append(history.ended.pop(key))


def _expected(history: _History, records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Replace the drops that were seen on few labelled examples by those that are to be expected of more.

    Args:
        history: The settled trials; those that were weighed before are weighed again only if the curve has changed.
        records: The later ones.
    """
    everything = [*history.settled, *records]
    model = drop_model(everything)
    if model.curve != history.curve:
        history.curve = model.curve
        history.weighed.clear()
    history.weighed += _weighed(history.settled[len(history.weighed) :], model)
    return [*history.weighed, *_weighed(records, model)]


def _weighed(records: Sequence[TrialRecord], model: DropModel) -> list[TrialRecord]:
    drops = iter(model.each([record.evidence for record in records if record.evidence is not None]))
    return [record if record.evidence is None else _with_drop(record, next(drops)) for record in records]


def _with_drop(record: TrialRecord, drop: float) -> TrialRecord:
    if record.stopped:
        drop = max(drop, record.drop_at_least or drop)  # the few labels of a first part may be lucky
    # For every trial of a job at every tick: dataclasses.replace would take ten times as long.
    changed = object.__new__(TrialRecord)
    values = changed.__dict__
    values.update(record.__dict__)
    values["drop"] = values["loss"] = drop
    return changed


def read_record(trial: Trial, *, labelled: bool) -> TrialRecord:
    """Read one trial from its row."""
    quality = Quality.model_validate(trial.quality) if trial.quality else None
    measurement = Measurement.model_validate(trial.measurement) if trial.measurement else None
    stop = stop_of(trial.facts)
    invalid = measurement is not None and unfused(trial, measurement) is not None  # its time teaches nothing
    return TrialRecord(
        trial_id=trial.id,
        number=trial.number,
        digest=trial.digest,
        source=trial.source,
        outcome="failed" if invalid else _outcome(trial.state),
        recipe=recipe_of(trial.candidate),
        params=trial.params,
        sampler_state=trial.sampler_state,
        ratio=measurement.ratio.value if measurement and not invalid else None,
        predicted=(trial.predicted or {}).get("ratio"),
        loss=loss(quality, labelled=labelled) if quality else None,
        drop=quality.drop.value if quality else None,
        drop_at_least=(max(quality.drop.low, stop.at_least) if stop else quality.drop.low) if quality else None,
        evidence=Evidence.of(quality) if quality and labelled else None,
        divergence=quality.divergence if quality else None,
        size_bytes=trial.size_bytes,
        reference_ms=measurement.reference_ms if measurement else None,
        noisy=measurement is not None and measurement.status == "noisy",
        stopped=stop is not None,
        finished_at=trial.finished_at,
    )


def loss(quality: Quality, *, labelled: bool) -> float:
    """Return the quality objective: drop of the labelled metric, or the divergence from the dense model."""
    return quality.drop.value if labelled else quality.divergence


def _outcome(state: str) -> Outcome:
    if state in {"queued", "evaluated"}:
        return "running"
    return "done" if state in {"complete", "rejected"} else "failed"
