"""Limits that a runner puts on itself before it touches anything that came from a user.

Doing this in the new process, not between fork and exec, works from programs with threads too. Every layer holds for
itself: where the kernel does not offer one, the others still do, and the runner says which are active.
"""

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from workers.runner.capabilities import drop_capabilities
from workers.runner.files import allowed_files
from workers.runner.kernel import PR_SET_NO_NEW_PRIVS
from workers.runner.kernel import PR_SET_PDEATHSIG
from workers.runner.kernel import libc
from workers.runner.kernel import prctl
from workers.runner.landlock import restrict
from workers.runner.options import RunnerOptions
from workers.runner.system_calls import Sockets
from workers.runner.system_calls import filter_system_calls

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_CPU_GRACE_SECONDS = 5


def confine(options: RunnerOptions, parent: int) -> dict[str, bool]:
    """Apply every limit that this kernel offers; must be called while the process has one thread.

    Args:
        options: The limits.
        parent: Process id of the parent, which must not be outlived.

    Returns:
        Which layers are active: ``limits``, ``no_network``, ``no_capabilities``, ``dies_with_parent``,
        ``no_new_privileges``, ``own_files_only``, ``filtered_system_calls``.
    """
    os.umask(0o077)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, options.file_bytes)
    # SIGXCPU, which says what happened, comes at the soft limit; SIGKILL at the hard one.
    _limit(resource.RLIMIT_CPU, options.cpu_seconds, grace=_CPU_GRACE_SECONDS)
    _limit(resource.RLIMIT_NPROC, options.processes)
    own_network = options.isolate_network and _leave_network()
    layers = {
        "limits": True,
        "no_capabilities": drop_capabilities(),
        # After the user namespace and the capabilities, because a change of credentials may clear it.
        "dies_with_parent": signal_on_parents_death(signal.SIGKILL, parent),
        "no_new_privileges": prctl(PR_SET_NO_NEW_PRIVS, 1),
        "own_files_only": options.isolate_files and _leave_files(options),
        "filtered_system_calls": options.filter_system_calls and filter_system_calls(sockets=_sockets(options)),
    }
    layers["no_network"] = own_network or (options.isolate_network and layers["filtered_system_calls"])
    return layers


def signal_on_parents_death(number: signal.Signals, parent: int) -> bool:
    """Let the kernel send a signal to this process when its parent dies; exit if it is dead already."""
    done = prctl(PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        sys.exit("the parent is gone")
    return done


def _limit(kind: int, value: int, grace: int = 0) -> None:
    _, ceiling = resource.getrlimit(kind)
    hard = value + grace if ceiling == resource.RLIM_INFINITY else min(value + grace, ceiling)
    resource.setrlimit(kind, (min(value, hard), hard))


def _leave_files(options: RunnerOptions) -> bool:
    return restrict(allowed_files(Path(options.workdir), map(Path, options.readable), nvidia=options.nvidia))


def _sockets(options: RunnerOptions) -> Sockets:
    if not options.isolate_network:
        return "any"
    return "local" if options.nvidia else "none"


def _leave_network() -> bool:
    """Move into a network namespace without interfaces; without root this needs a user namespace as well."""
    if libc().unshare(_CLONE_NEWNET) == 0:
        return True
    user, group = os.getuid(), os.getgid()
    if libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    with suppress(OSError):  # keep our own ids visible inside
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True
