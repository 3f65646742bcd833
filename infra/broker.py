"""A plain client of the message broker, for what is not a message."""

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from infra.settings import Settings


def broker_client(settings: Settings, seconds: float) -> redis.Redis:
    """Return a client that connects when it is used.

    Args:
        settings: The settings; the form of ``broker_url`` is that of Celery.
        seconds: Longest time to wait for the server.
    """
    url = settings.broker_url.replace("redis+socket://", "unix://").replace("virtual_host=", "db=")
    once = Retry(NoBackoff(), 0)
    return redis.Redis.from_url(url, socket_timeout=seconds, socket_connect_timeout=seconds, retry=once)
