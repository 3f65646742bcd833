"""What a full disk looks like, and what it means: wait, it is nobody's fault and passes."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from infra.errors import UnavailableError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def is_disk_full(error: OSError) -> bool:
    """Whether ``error`` says that a disk or a quota is used up."""
    return error.errno in _FULL


def disk_full(error: OSError) -> UnavailableError | None:
    """Return the error that a worker raises instead if ``error`` says that a disk is full, else ``None``."""
    if not is_disk_full(error):
        return None
    return UnavailableError("A disk of the worker is full.", hint="Free some space; work goes on by itself.")


@contextmanager
def full_disk_is_unavailable(message: str) -> Iterator[None]:
    """Raise :class:`UnavailableError` with ``message`` if the block fails because a disk is full."""
    try:
        yield
    except OSError as error:
        if not is_disk_full(error):
            raise
        raise UnavailableError(message, hint="Free some space or delete old jobs; work goes on by itself.") from error
