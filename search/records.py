"""Reads trials from the database in the form that strategies and decisions use."""

from collections import OrderedDict
from collections.abc import Sequence

from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.database.models import Trial
from profilers.types import Measurement
from profilers.types import Quality
from search.candidates import recipe_of
from search.drop_model import DropModel
from search.drop_model import Evidence
from search.study import Outcome
from search.study import TrialRecord

_KEPT = 20_000
_Key = tuple[str, str, bool]
_ended: OrderedDict[_Key, TrialRecord] = OrderedDict()


def job_records(session: Session, job_id: str, *, labelled: bool, expected_drops: bool = True) -> list[TrialRecord]:
    """Return all trials of a job by number, with the numbers of the search.

    What a trial was found to be does not change after its end, so a process reads each ended trial once; later calls
    fetch its key only.

    Args:
        session: Any session.
        job_id: The job.
        labelled: Whether quality is a labelled metric.
        expected_drops: Whether to weigh drops as :func:`with_expected_drops` does; for who looks at none, it is waste.
    """
    statement = select(Trial.id, Trial.state).where(Trial.job_id == job_id)
    keys = [(*row, labelled) for row in session.exec(statement.order_by(col(Trial.number)))]
    missing = {key[0] for key in keys if key not in _ended}
    rows = select(Trial).where(Trial.job_id == job_id)
    if len(missing) < 200:  # databases limit the number of parameters of a statement
        rows = rows.where(col(Trial.id).in_(missing))
    fresh = {trial.id: read_record(trial, labelled=labelled) for trial in session.exec(rows)} if missing else {}
    records = [_ended.get(key) or fresh[key[0]] for key in keys]
    for key, record in zip(keys, records, strict=True):
        if record.finished_at is not None:
            _ended[key] = record
    while len(_ended) > _KEPT:
        _ended.popitem(last=False)
    return with_expected_drops(records) if expected_drops else records


def with_expected_drops(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Replace the drops that were seen on few labelled examples by those that are to be expected of more."""
    model = DropModel(record.evidence for record in records if record.evidence is not None)
    return [record if record.evidence is None else _expected(record, record.evidence, model) for record in records]


def _expected(record: TrialRecord, evidence: Evidence, model: DropModel) -> TrialRecord:
    drop = model.expected([evidence])
    # For every trial of a job at every tick: dataclasses.replace would take five times as long.
    changed = object.__new__(TrialRecord)
    vars(changed).update(vars(record))
    vars(changed).update(drop=drop, loss=drop)
    return changed


def read_record(trial: Trial, *, labelled: bool) -> TrialRecord:
    """Read one trial from its row."""
    quality = Quality.model_validate(trial.quality) if trial.quality else None
    measurement = Measurement.model_validate(trial.measurement) if trial.measurement else None
    return TrialRecord(
        trial_id=trial.id,
        number=trial.number,
        digest=trial.digest,
        source=trial.source,
        outcome=_outcome(trial.state),
        recipe=recipe_of(trial.candidate),
        params=trial.params,
        sampler_state=trial.sampler_state,
        ratio=measurement.ratio.value if measurement else None,
        predicted=(trial.predicted or {}).get("ratio"),
        loss=loss(quality, labelled=labelled) if quality else None,
        drop=quality.drop.value if quality else None,
        drop_at_least=quality.drop.low if quality else None,
        evidence=Evidence.of(quality) if quality and labelled else None,
        divergence=quality.divergence if quality else None,
        size_bytes=trial.size_bytes,
        latency_ms=measurement.latency_ms if measurement else None,
        finished_at=trial.finished_at,
    )


def loss(quality: Quality, *, labelled: bool) -> float:
    """Return the quality objective: drop of the labelled metric, or the divergence from the dense model."""
    return quality.drop.value if labelled else quality.divergence


def _outcome(state: str) -> Outcome:
    if state in {"queued", "evaluated"}:
        return "running"
    return "done" if state in {"complete", "rejected"} else "failed"
