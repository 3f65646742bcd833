"""What ``/metrics`` says, and that the Grafana dashboard asks for nothing else."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlmodel import select

from infra import steps
from infra.clock import utcnow
from infra.counters import LEASES_EXPIRED
from infra.counters import count
from infra.database.models import Job
from infra.database.models import Step
from infra.errors import RunnerError
from tests.unit.api.conftest import World
from tests.unit.api.conftest import submit

DASHBOARD = json.loads((Path(__file__).parents[3] / "infra/deploy/grafana/paretune.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.fixture
def samples(world: World) -> dict[str, dict[tuple[str, ...], float]]:
    """``{name: {label values: value}}`` of a service that has worked a little."""
    job_id = submit(world.client())["id"]
    now = utcnow()
    with world.services.database.write_session() as session:
        job = session.get_one(Job, job_id)
        for number, seconds in enumerate((1.0, 3.0)):
            step = steps.create_step(session, job_id=job.id, kind="measure", key=f"m{number}", queue="device.local-cpu")
            step.state, step.finished_at = "done", now
            step.started_at = now - timedelta(seconds=seconds)
            session.add(step)
        broken = steps.create_step(session, job_id=job.id, kind="evaluate", key="e", queue="compute")
        claimed = steps.claim(session, broken.id, "host/1", 60)
        assert claimed is not None
        steps.fail(session, claimed, RunnerError("out of memory"), retry=False)
        old = steps.create_step(session, job_id=job.id, kind="evaluate", key="old", queue="compute")
        old.state, old.finished_at, old.started_at = "done", now - timedelta(hours=1), now - timedelta(hours=2)
        session.add(old)
        count(session, LEASES_EXPIRED, 3)
        inspect = session.exec(select(Step).where(Step.key == "inspect")).one()
        inspect.created_at = now - timedelta(seconds=90)
        session.add(inspect)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(world.client_with(None).get("/metrics").text):
        found.setdefault(family.name, {})
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_work_is_counted(samples: dict[str, dict[tuple[str, ...], float]]) -> None:
    assert samples["paretune_queue_depth"] == {("compute",): 1}
    assert 90 <= samples["paretune_queue_oldest_seconds"]["compute",] < 200
    assert samples["paretune_step_seconds"]["measure", "0.5"] == pytest.approx(2.0)
    assert samples["paretune_step_seconds"]["evaluate", "0.95"] < 60  # the old one is not recent
    assert samples["paretune_steps_ended_recently"] == {("measure", "done"): 2, ("evaluate", "failed"): 1}
    assert samples["paretune_errors_recently"] == {("runner-failed", "evaluate"): 1}
    assert samples["paretune_lease_expirations_total"] == {(): 3}
    assert samples["paretune_device_busy_share"]["local-cpu",] == pytest.approx(4 / 300, abs=1e-3)


def test_the_dashboard_asks_for_what_is_exported(samples: dict[str, dict[tuple[str, ...], float]]) -> None:
    asked = {name for expression in EXPRESSIONS for name in re.findall(r"\bparetune_\w+", expression)}
    assert asked <= set(samples)
    exported = {name for name in samples if name.startswith("paretune_") and not name.endswith(("_created", "_total"))}
    shown = {name.removesuffix("_total").removesuffix("_bucket") for name in asked}
    unseen = {re.sub(r"_(bucket|count|sum)$", "", name) for name in exported} - shown
    assert unseen == {"paretune_device_busy", "paretune_steps_ended_recently"}


def test_the_dashboard_groups_by_labels_that_exist(world: World) -> None:
    text = world.client_with(None).get("/metrics").text + world.client_with(None).get("/metrics").text
    labels = {name for labels in re.findall(r"\{([^}]*)\}", text) for name in re.findall(r"(\w+)=", labels)}
    labels |= {"queue", "state", "kind", "quantile", "error", "device", "le"}  # of families without samples here
    used = {name for e in EXPRESSIONS for group in re.findall(r"by \(([^)]*)\)", e) for name in group.split(", ")}
    assert used <= labels


def test_panels_have_places_and_titles() -> None:
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(titles)) == len(titles)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
