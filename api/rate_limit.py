"""How many requests a client may send: token buckets in the memory of this process, or in the broker for all."""

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from typing import Protocol

from redis import Redis
from redis.exceptions import RedisError

from infra.broker import broker_client
from infra.errors import RateLimitedError
from infra.settings import Settings

logger = logging.getLogger(__name__)

_REMEMBERED = 10_000
_BROKER_SECONDS = 0.5
"""A request does not wait for the broker any longer."""
_AWAY_SECONDS = 5.0
"""A broker that did not answer is left alone for this time."""
_TAKE = """
local now = redis.call("TIME")
local milliseconds = now[1] * 1000 + math.floor(now[2] / 1000)
local capacity = tonumber(ARGV[1])
local bucket = redis.call("HMGET", KEYS[1], "tokens", "since")
local tokens = tonumber(bucket[1]) or capacity
local since = tonumber(bucket[2]) or milliseconds
tokens = math.min(capacity, tokens + math.max(0, milliseconds - since) * capacity / 60000)
local allowed = tokens >= 1
if allowed then tokens = tokens - 1 end
redis.call("HSET", KEYS[1], "tokens", tostring(tokens), "since", tostring(milliseconds))
redis.call("PEXPIRE", KEYS[1], 60000)
return allowed and 1 or 0
"""
"""One step in the server, by the server's clock; a bucket that nobody uses for a minute is full and forgotten."""


class Limiter(Protocol):
    """What limits requests."""

    def take(self, name: str) -> None:
        """Take one token.

        Raises:
            RateLimitedError: The bucket is empty.
        """
        ...


class RateLimiter:
    """One token bucket for each name; full at first, refilled evenly.

    Args:
        per_minute: Requests that a bucket holds, and that flow into it in a minute.
        clock: Seconds, monotonic.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """Take one token.

        Raises:
            RateLimitedError: The bucket is empty.
        """
        now = self._clock()
        with self._lock:
            tokens, since = self._buckets.pop(name, (self._capacity, now))
            tokens = min(self._capacity, tokens + (now - since) * self._capacity / 60.0)
            allowed = tokens >= 1.0
            self._buckets[name] = (tokens - 1.0 if allowed else tokens, now)
            while len(self._buckets) > _REMEMBERED:
                self._buckets.popitem(last=False)
        if not allowed:
            raise _too_many(self._capacity)


class SharedRateLimiter:
    """The same buckets for all API processes, in the broker; in this process alone while the broker is away.

    Args:
        per_minute: Requests that a bucket holds, and that flow into it in a minute.
        client: Client of the broker, with short time-outs: every request waits for it.
        clock: Seconds, monotonic.
    """

    def __init__(self, per_minute: int, client: Redis, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = per_minute
        self._alone = RateLimiter(per_minute, clock)
        self._script: Any = client.register_script(_TAKE)
        self._clock = clock
        self._away_until = float("-inf")

    def take(self, name: str) -> None:
        """See :meth:`Limiter.take`."""
        if self._clock() < self._away_until:
            self._alone.take(name)
            return
        try:
            allowed = bool(self._script(keys=[f"paretune:rate:{name}"], args=[self._capacity]))
        except (RedisError, OSError) as error:
            logger.warning("rate limits hold for each API process alone, because the broker is away: %s", error)
            self._away_until = self._clock() + _AWAY_SECONDS
            self._alone.take(name)
            return
        if not allowed:
            raise _too_many(self._capacity)


def make_limiter(settings: Settings) -> Limiter:
    """Return the limiter of an API process."""
    try:
        client = broker_client(settings, _BROKER_SECONDS)
    except ValueError:  # a broker that Celery knows and the client of Redis does not
        return RateLimiter(settings.requests_per_minute)
    return SharedRateLimiter(settings.requests_per_minute, client)


def _too_many(per_minute: float) -> RateLimitedError:
    return RateLimitedError(
        f"More than {per_minute:.0f} requests in a minute.",
        hint="Wait a moment; watch a job by its event stream instead of polling it.",
    )
