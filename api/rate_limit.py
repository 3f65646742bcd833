"""How many requests a client may send: token buckets in the memory of this process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from infra.errors import RateLimitedError

_REMEMBERED = 10_000


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
            raise RateLimitedError(
                f"More than {self._capacity:.0f} requests in a minute.",
                hint="Wait a moment; watch a job by its event stream instead of polling it.",
            )
