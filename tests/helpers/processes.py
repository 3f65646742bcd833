"""Whether processes have ended."""

import time

import psutil


def gone(pid: int, within: float = 5.0) -> bool:
    """Wait for the end of a process that need not be our child; a zombie has ended too."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False
