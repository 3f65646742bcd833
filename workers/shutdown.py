"""How the children of a worker learn that it is stopping.

Celery tells its main process only. The flag is memory that the forked children share with it.
"""

import mmap

_flag = mmap.mmap(-1, 1)


def request() -> None:
    """Ask this process and all that were forked from it to stop."""
    _flag[0] = 1


def requested() -> bool:
    """Whether somebody asked."""
    return _flag[0] == 1
