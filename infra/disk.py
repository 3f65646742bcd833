"""What a full disk looks like, and what it means: wait, it is nobody's fault and passes."""

import errno

from infra.errors import UnavailableError

_FULL = (errno.ENOSPC, errno.EDQUOT)


def disk_full(error: OSError) -> UnavailableError | None:
    """Return the error to raise instead if ``error`` says that a disk or a quota is used up, else ``None``."""
    if error.errno not in _FULL:
        return None
    return UnavailableError("A disk of the worker is full.", hint="Free some space; work goes on by itself.")
