"""Limits that a runner puts on itself before it touches anything that came from a user.

Doing this in the new process, not between fork and exec, works from programs with threads too.
"""

import ctypes
import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from workers.runner.options import RunnerOptions

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CPU_GRACE_SECONDS = 5


def confine(options: RunnerOptions, parent: int) -> dict[str, bool]:
    """Apply every limit that this kernel offers; must be called while the process has one thread.

    Args:
        options: The limits.
        parent: Process id of the parent, which must not be outlived.

    Returns:
        Which layers are active: ``dies_with_parent``, ``no_new_privileges``, ``limits``, ``no_network``.
    """
    os.umask(0o077)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, options.file_bytes)
    # SIGXCPU, which says what happened, comes at the soft limit; SIGKILL at the hard one.
    _limit(resource.RLIMIT_CPU, options.cpu_seconds, grace=_CPU_GRACE_SECONDS)
    _limit(resource.RLIMIT_NPROC, options.processes)
    return {
        "limits": True,
        "no_network": options.isolate_network and _leave_network(),
        # After the user namespace, because a change of credentials may clear it.
        "dies_with_parent": signal_on_parents_death(signal.SIGKILL, parent),
        "no_new_privileges": _prctl(_PR_SET_NO_NEW_PRIVS, 1),
    }


def signal_on_parents_death(number: signal.Signals, parent: int) -> bool:
    """Let the kernel send a signal to this process when its parent dies; exit if it is dead already."""
    done = _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    return done


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> bool:
    return bool(_libc().prctl(option, value, 0, 0, 0) == 0)


def _limit(kind: int, value: int, grace: int = 0) -> None:
    _, ceiling = resource.getrlimit(kind)
    hard = value + grace if ceiling == resource.RLIM_INFINITY else min(value + grace, ceiling)
    resource.setrlimit(kind, (min(value, hard), hard))


def _leave_network() -> bool:
    """Move into a network namespace without interfaces; without root this needs a user namespace as well."""
    libc = _libc()
    if libc.unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    with suppress(OSError):  # keep our own ids visible inside
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True
