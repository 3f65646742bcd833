"""Steps and requests leave spans with their ids, when that is wanted."""

import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.app import create_app
from infra import tracing
from infra.database import migrate
from infra.errors import InvalidInputError
from infra.settings import load_settings
from infra.steps import ClaimedStep

STEP = ClaimedStep("s", "j", "t", "evaluate", "evaluate:1", "compute", {}, 1, 3, "host/1", "token")


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def test_a_step_is_a_span_with_ids(spans: InMemorySpanExporter) -> None:
    with tracing.step_span(STEP, enabled=True):
        tracing.mark_failed("out of memory")
    with tracing.step_span(STEP, enabled=False):
        pass
    (span,) = spans.get_finished_spans()
    assert span.name == "step evaluate"
    assert span.attributes is not None
    assert (span.attributes["paretune.job_id"], span.attributes["paretune.trial_id"]) == ("j", "t")
    assert (span.status.status_code, span.status.description) == (trace.StatusCode.ERROR, "out of memory")


@pytest.mark.parametrize("enabled", [True, False])
def test_requests_are_traced_but_not_probes(
    enabled: bool, spans: InMemorySpanExporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.app.configure_tracing", lambda *_: None)  # the provider is that of the fixture
    settings = load_settings(home=tmp_path, tracing=enabled)
    migrate.upgrade(settings)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        client.get("/v1/jobs/some-id")
        client.get("/health/live")
        client.get("/metrics")
    routes = {span.attributes["http.route"] for span in spans.get_finished_spans() if "http.route" in span.attributes}
    assert routes == ({"/v1/jobs/{job_id}"} if enabled else set())


def test_without_the_sdk_the_mistake_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_sdk(name: str, *rest: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without_sdk)
    tracing.configure_tracing(load_settings(), "worker")
    with pytest.raises(InvalidInputError, match="not installed"):
        tracing.configure_tracing(load_settings(tracing=True), "worker")
