"""Metrics about the work itself, from the steps that wait and from those that ended a short while ago."""

from collections import Counter
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import sqlalchemy
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from sqlalchemy import func
from sqlmodel import Session
from sqlmodel import col
from sqlmodel import select

from infra.clock import utcnow
from infra.database.models import Step
from infra.steps import is_due

WINDOW = timedelta(minutes=5)
"""What "recent" means."""
_MOST_STEPS = 20_000
_QUANTILES = (0.5, 0.95)
_COLUMNS = (
    col(Step.kind),
    col(Step.queue),
    col(Step.state),
    col(Step.started_at),
    col(Step.finished_at),
    col(Step.error),
)


def work_families(session: Session) -> Iterator[Metric]:
    """Yield queue depth, waiting time, durations, ends, errors, and how busy the devices were."""
    yield from _queues(session)
    yield from _recent(session)


def _queues(session: Session) -> Iterator[Metric]:
    depth = GaugeMetricFamily("paretune_queue_depth", "Steps that are due and wait for a worker.", labels=["queue"])
    oldest = GaugeMetricFamily("paretune_queue_oldest_seconds", "Age of the oldest of them.", labels=["queue"])
    waiting = select(Step.queue, func.count(), func.min(Step.created_at)).where(Step.state == "queued", is_due())
    for queue, count, since in session.exec(waiting.group_by(Step.queue)):
        depth.add_metric([queue], count)
        oldest.add_metric([queue], (utcnow() - since).total_seconds())
    yield depth
    yield oldest


def _recent(session: Session) -> Iterator[Metric]:
    begin = utcnow() - WINDOW
    ended = session.execute(sqlalchemy.select(*_COLUMNS).where(col(Step.finished_at) > begin).limit(_MOST_STEPS)).all()
    seconds: dict[str, list[float]] = defaultdict(list)
    busy: dict[str, float] = defaultdict(float)
    ends: Counter[tuple[str, str]] = Counter()
    errors: Counter[tuple[str, str]] = Counter()
    for kind, queue, state, started, finished, error in ended:
        ends[kind, state] += 1
        if state == "failed":
            errors[kind, str((error or {}).get("code", "unknown"))] += 1
        if started is None or finished is None:
            continue
        seconds[kind].append((finished - started).total_seconds())
        if queue.startswith("device."):
            busy[queue.removeprefix("device.")] += (finished - max(started, begin)).total_seconds()
    running = select(Step.queue, Step.started_at).where(Step.state == "running", col(Step.queue).startswith("device."))
    for queue, started in session.exec(running):
        if started is not None:
            busy[queue.removeprefix("device.")] += (utcnow() - max(started, begin)).total_seconds()
    yield _durations(seconds)
    yield _counts("paretune_steps_ended_recently", "Steps that ended in the last five minutes.", "state", ends)
    yield _counts("paretune_errors_recently", "Steps that failed for good in the last five minutes.", "error", errors)
    share = GaugeMetricFamily(
        "paretune_device_busy_share", "Share of the last five minutes that a device was in use.", labels=["device"]
    )
    for device, spent in busy.items():
        share.add_metric([device], min(1.0, spent / WINDOW.total_seconds()))
    yield share


def _durations(seconds: dict[str, list[float]]) -> Metric:
    family = GaugeMetricFamily(
        "paretune_step_seconds",
        "Duration of the steps that ended in the last five minutes; evaluate and measure make up a trial.",
        labels=["kind", "quantile"],
    )
    for kind, values in seconds.items():
        for quantile in _QUANTILES:
            family.add_metric([kind, str(quantile)], float(np.quantile(values, quantile)))
    return family


def _counts(name: str, documentation: str, label: str, counts: Counter[tuple[str, str]]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=["kind", label])
    for labels, count in counts.items():
        family.add_metric(list(labels), count)
    return family
