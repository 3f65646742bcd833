"""OpenTelemetry traces of steps; off unless ``PARETUNE_TRACING`` is set. FastAPI traces requests by itself.

Without the SDK (extra ``otel``) and a collector, spans are no-ops.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace

from infra.errors import InvalidInputError
from infra.settings import Settings
from infra.steps import ClaimedStep

_NAME = "paretune"


def configure_tracing(settings: Settings, process: str) -> None:
    """Send this process's spans to the collector that the ``OTEL_*`` variables name; call it after forking.

    Args:
        settings: Whether to trace at all.
        process: What this process is, such as ``worker``: the default of ``OTEL_SERVICE_NAME`` is ``paretune-worker``.

    Raises:
        InvalidInputError: Tracing is on, but the SDK is not installed.
    """
    if not settings.tracing:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME
        from opentelemetry.sdk.resources import OTELResourceDetector
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise InvalidInputError(
            "PARETUNE_TRACING is on, but OpenTelemetry's SDK is not installed.",
            hint="Install it with pip install 'paretune[otel]', or leave PARETUNE_TRACING out.",
        ) from error
    resource = Resource.create({SERVICE_NAME: f"{_NAME}-{process}"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


@contextmanager
def step_span(claimed: ClaimedStep, *, enabled: bool) -> Iterator[None]:
    """Trace the work on a step: one span with the ids of step, job and trial."""
    if not enabled:
        yield
        return
    attributes: dict[str, str | int] = {
        "paretune.job_id": claimed.job_id,
        "paretune.step_id": claimed.id,
        "paretune.step": claimed.key,
        "paretune.queue": claimed.queue,
        "paretune.attempt": claimed.attempt,
    }
    if claimed.trial_id is not None:
        attributes["paretune.trial_id"] = claimed.trial_id
    with trace.get_tracer(_NAME).start_as_current_span(f"step {claimed.kind}", attributes=attributes):
        yield


def mark_failed(message: str) -> None:
    """Mark the current span as failed; without one, nothing happens."""
    trace.get_current_span().set_status(trace.StatusCode.ERROR, message)
