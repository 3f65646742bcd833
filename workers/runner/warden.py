"""The first process of a runner: it does nothing but see to it that the whole process group ends together.

The kernel can be asked to kill a process when its parent dies, but not the processes that it has started itself. So the
work is done in a child of the warden, and the warden, which nothing can keep busy, takes the group down when the worker
dies or asks for it.
"""

import os
import resource
import signal
from types import FrameType
from typing import NoReturn

from workers.runner.confine import signal_on_parents_death


def stand_guard(parent: int) -> int:
    """Fork: the parent stays here as the warden and never returns, the child does the work.

    Must be called while the process has one thread.

    Args:
        parent: The worker's process id.

    Returns:
        In the child: the warden's process id.
    """
    signal.signal(signal.SIGTERM, _end_group)
    signal_on_parents_death(signal.SIGTERM, parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warden = os.getpid()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return warden
    for descriptor in (0, 1):  # the pipes belong to the child: they must close when it ends
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    _end_like(os.waitstatus_to_exitcode(status))


def _end_group(_number: int, _frame: FrameType | None) -> None:
    os.killpg(0, signal.SIGKILL)


def _end_like(code: int) -> NoReturn:
    """End the way that the child did, for the worker to see; it takes down what the child may have left behind."""
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
