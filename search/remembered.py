"""What follows from a trial's recipe alone is computed once in a process: a tick of a large job costs what is new."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic
from typing import TypeVar

from pydantic import BaseModel

Value = TypeVar("Value")


def context_key(*parts: BaseModel) -> str:
    """Name the content of everything, beside the recipe, that a remembered value depends on."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.model_dump_json().encode())
    return digest.hexdigest()


class Remembered(Generic[Value]):
    """Values by (context, name); those that were not asked for longest are forgotten. Only saves time.

    Args:
        most: Number of values to keep.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[tuple[str, str], Value] = OrderedDict()

    def get(self, context: str, name: str, compute: Callable[[], Value]) -> Value:
        """Return the value of a name.

        Args:
            context: See :func:`context_key`.
            name: Names the recipe or a part of it.
            compute: Called when the value is not known.
        """
        key = (context, name)
        try:
            self._values.move_to_end(key)
            return self._values[key]
        except KeyError:
            value = self._values[key] = compute()
        while len(self._values) > self._most:
            self._values.popitem(last=False)
        return value
