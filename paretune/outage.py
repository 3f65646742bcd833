"""A service that is away for a moment: it is being restarted, or the network is. Who waits for it goes on waiting."""

import random
import time
from collections.abc import Callable
from typing import TypeVar

import httpx

from paretune.errors import ApiError

LONGEST_SECONDS = 120.0
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 5.0
_PASSING = frozenset({429, 502, 503, 504})

T = TypeVar("T")


class Outage:
    """Lets failures pass that end by themselves, until they have lasted for two minutes.

    Args:
        url: Where the service should be; for the error.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._since: float | None = None
        self._delay = _FIRST_DELAY_SECONDS

    def over(self) -> None:
        """Note that the service answers."""
        self._since, self._delay = None, _FIRST_DELAY_SECONDS

    def endure(self, error: ApiError | httpx.TransportError) -> None:
        """Sleep before the next try, longer each time.

        Raises:
            ApiError: The failure does not end by itself, or has lasted for two minutes.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        if not _passes(error) or now - self._since > LONGEST_SECONDS:
            raise error if isinstance(error, ApiError) else ApiError.unreachable(self._url, error) from error
        time.sleep(self._delay * random.uniform(0.7, 1.3))  # noqa: S311 - jitter
        self._delay = min(2 * self._delay, _LONGEST_DELAY_SECONDS)


def _passes(error: Exception) -> bool:
    if isinstance(error, ApiError) and error.status != 0:
        return error.status in _PASSING
    cause = error.__cause__ if isinstance(error, ApiError) else error
    return isinstance(cause, httpx.TransportError) and not isinstance(cause, httpx.UnsupportedProtocol)


def _arrived(error: ApiError) -> bool:
    return not isinstance(error.__cause__, httpx.ConnectError | httpx.ConnectTimeout)


def poll(
    read: Callable[[], T],
    done: Callable[[T], bool],
    *,
    what: str,
    url: str,
    pause: float,
    timeout: float | None,
    works: bool = False,
) -> T:
    """Read something again and again until it is done; an outage only makes this take longer.

    Args:
        read: Asks the service.
        done: Whether what was read is final.
        what: Its name, for the error.
        url: Where the service should be.
        pause: Seconds between two readings.
        timeout: Seconds after which to give up; ``None`` waits for ever.
        works: The service does long work before it answers. A request that failed late was being worked on, only
            somebody in between did not wait for the answer: that is no outage.

    Raises:
        ApiError: The service refuses, or has been away for two minutes.
        TimeoutError: It is not done after ``timeout`` seconds.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    outage = Outage(url)
    while True:
        began = time.monotonic()
        try:
            value = read()
        except ApiError as error:
            if works and _arrived(error) and time.monotonic() - began > _LONGEST_DELAY_SECONDS:
                outage.over()
            outage.endure(error)
        else:
            outage.over()
            if done(value):
                return value
        if deadline is not None and time.monotonic() > deadline:
            raise TimeoutError(f"{what} is not done after {timeout} seconds; it goes on")
        time.sleep(pause)
