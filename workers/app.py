"""The Celery application: ``celery -A workers.app worker -Q compute``."""

from typing import Any

from celery.signals import setup_logging
from celery.signals import worker_process_shutdown
from celery.signals import worker_ready
from celery.signals import worker_shutting_down

from infra.log import configure_logging
from infra.queue import make_celery
from infra.settings import load_settings
from workers import shutdown
from workers.served_devices import describe_at_start
from workers.tasks import close_executor
from workers.tasks import register

settings = load_settings()
app = make_celery(settings)
register(app, settings)


@setup_logging.connect  # type: ignore[untyped-decorator]
def _on_setup_logging(**_: Any) -> None:
    configure_logging(settings.log_format)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _on_ready(sender: Any, **_: Any) -> None:
    describe_at_start(settings, sender.app.amqp.queues.consume_from)


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _on_shutting_down(**_: Any) -> None:
    shutdown.request()


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def _on_process_shutdown(**_: Any) -> None:
    close_executor()
