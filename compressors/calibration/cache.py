"""A cache with a bound on bytes, for factorisations that many recipes share."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol
from typing import TypeVar


class Sized(Protocol):
    """Anything that knows its size in memory."""

    @property
    def nbytes(self) -> int:
        """Bytes that the value holds."""


V = TypeVar("V", bound=Sized)


class ByteCache:
    """Least-recently-used cache: holds at most ``limit`` bytes; what is larger is computed anew each time."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._values: OrderedDict[str, Sized] = OrderedDict()

    def get(self, key: str, kind: type[V], compute: Callable[[], V]) -> V:
        """Return the value of ``key``, which is of type ``kind``; compute and keep it when it is not there."""
        value = self._values.get(key)
        if isinstance(value, kind):
            self._values.move_to_end(key)
            return value
        fresh = compute()
        if fresh.nbytes <= self.limit:
            self._values[key] = fresh
            self.used += fresh.nbytes
            while self.used > self.limit:
                _, old = self._values.popitem(last=False)
                self.used -= old.nbytes
        return fresh

    def clear(self) -> None:
        """Forget everything."""
        self._values.clear()
        self.used = 0
