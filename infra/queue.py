"""Messages that tell workers which step to look at.

A message carries the id of a step and nothing else. The database is the truth: a message that is lost is sent again by
the relay, one that arrives twice finds the step taken. So messages are acknowledged early and there are no results.
"""

import re

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from infra.errors import UnavailableError
from infra.settings import Settings

STEP_TASK = "paretune.do_step"
SEARCH = "search"
COMPUTE = "compute"
_QUEUE_NAME = re.compile(r"search|compute|device\.[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_PRIORITIES = 10


def device_queue(device: str) -> str:
    """Return the queue of a registered device.

    Raises:
        ValueError: The name has characters that a queue cannot have.
    """
    return _checked(f"device.{device}")


def device_of(queue: str) -> str | None:
    """Return the name of the device that a queue belongs to; ``None`` for the other queues."""
    prefix, _, name = queue.partition(".")
    return name if prefix == "device" and name else None


def _checked(queue: str) -> str:
    if not _QUEUE_NAME.fullmatch(queue):
        raise ValueError(f"{queue!r} is no queue: use 'search', 'compute' or 'device.<name>'")
    return queue


def make_celery(settings: Settings) -> Celery:
    """Return the Celery application of these settings; the same for those who send and those who work."""
    app = Celery("paretune", broker=settings.broker_url, set_as_current=False)
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_acks_late=False,
        task_default_queue=SEARCH,
        worker_disable_prefetch=True,
        worker_prefetch_multiplier=1,
        worker_pool="prefork",
        worker_concurrency=1,
        worker_max_tasks_per_child=500,
        worker_proc_alive_timeout=60,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=5,
        broker_pool_acquire_timeout=5,
        broker_transport_options={
            "visibility_timeout": 3600,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "queue_order_strategy": "priority",
            "priority_steps": list(range(_PRIORITIES)),
            # A sender does not wait for a broker that is away: the relay sends later.
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        },
    )
    return app


class StepQueue:
    """Sends messages about steps; cheap to create, safe to share between threads."""

    def __init__(self, settings: Settings, app: Celery | None = None) -> None:
        self.app = app or make_celery(settings)

    def dispatch(self, step_id: str, queue: str, priority: int = 5) -> None:
        """Send one message.

        Args:
            step_id: The step to do.
            queue: ``search``, ``compute`` or ``device.<name>``.
            priority: 0 to 9; 9 is served first.

        Raises:
            UnavailableError: The broker does not answer; the relay will send the message later.
            ValueError: No such kind of queue.
        """
        with _translated():
            self.app.send_task(
                STEP_TASK,
                args=[step_id],
                queue=_checked(queue),
                priority=_PRIORITIES - 1 - priority,  # on Redis, 0 is served first
                retry=False,
                ignore_result=True,
            )

    def depth(self, queue: str) -> int:
        """Return how many messages wait in a queue.

        Raises:
            UnavailableError: The broker does not answer.
        """
        with _translated(), self.app.connection_for_read() as connection, connection.channel() as channel:
            return int(channel._size(_checked(queue)))

    def ping(self) -> None:
        """Return if the broker answers.

        Raises:
            UnavailableError: It does not.
        """
        with _translated(), self.app.connection_for_read() as connection, connection.channel() as channel:
            channel.client.ping()


class _translated:
    """Turn what kombu and redis raise when the broker is away into our own error."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, OperationalError | RedisError | OSError):
            raise UnavailableError(
                "The message broker does not answer.",
                hint="Nothing is lost: work goes on when the broker is back.",
            ) from error
