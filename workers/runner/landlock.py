"""Landlock: a process gives up, for itself and its children, every file that it did not name before.

It needs no privileges. See ``Documentation/userspace-api/landlock.rst`` of the kernel.
"""

import ctypes
import os
from collections.abc import Iterable
from collections.abc import Mapping
from enum import IntFlag
from pathlib import Path

from workers.runner.kernel import system_call

_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_ABSTRACT_SOCKETS_AND_SIGNALS = 0b11


class Access(IntFlag):
    """Rights on files; later ones came with later versions of the interface."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15


READ = Access.EXECUTE | Access.READ_FILE | Access.READ_DIR
LIST = Access.READ_DIR
CHANGE = (
    Access.READ_FILE | Access.READ_DIR | Access.WRITE_FILE | Access.TRUNCATE | Access.REFER
    | Access.REMOVE_DIR | Access.REMOVE_FILE | Access.MAKE_DIR | Access.MAKE_REG | Access.MAKE_SYM
    | Access.MAKE_FIFO
)  # fmt: skip
"""Everything but running what was written, and making devices and sockets."""
DEVICE = Access.READ_FILE | Access.WRITE_FILE | Access.IOCTL_DEV

_OF_FILES = Access.EXECUTE | Access.WRITE_FILE | Access.READ_FILE | Access.TRUNCATE | Access.IOCTL_DEV
_SINCE = {1: (1 << 13) - 1, 2: Access.REFER, 3: Access.TRUNCATE, 5: Access.IOCTL_DEV}
_SCOPES_SINCE = 6


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Return the version of the kernel's interface; 0 if it has none or it is switched off."""
    try:
        return system_call("landlock_create_ruleset", None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except OSError:
        return 0


def restrict(allowed: Mapping[Access, Iterable[Path]]) -> bool:
    """Give up every file but the allowed ones, and signals and abstract sockets to processes outside.

    Takes effect for this thread and what it starts. ``prctl(PR_SET_NO_NEW_PRIVS)`` must have been called. Processes
    outside can no longer be looked into either (``/proc/<pid>/environ``, ``ptrace``).

    Args:
        allowed: Rights, and the files and directories that they hold for, with everything below; missing ones are
            left out.

    Returns:
        Whether the kernel does it.

    Raises:
        OSError: The kernel knows Landlock and refuses the rules.
    """
    known = version()
    if known == 0:
        return False
    handled = Access(0)
    for since, rights in _SINCE.items():
        if known >= since:
            handled |= rights
    attributes = _Ruleset(handled, 0, _ABSTRACT_SOCKETS_AND_SIGNALS if known >= _SCOPES_SINCE else 0)
    # An older kernel takes a longer structure as long as what it does not know is zero.
    ruleset = system_call(
        "landlock_create_ruleset", ctypes.byref(attributes), ctypes.c_size_t(ctypes.sizeof(attributes)), 0
    )
    try:
        for rights, paths in allowed.items():
            for path in paths:
                _add(ruleset, path, rights & handled)
        system_call("landlock_restrict_self", ctypes.c_int(ruleset), 0)
    finally:
        os.close(ruleset)
    return True


def _add(ruleset: int, path: Path, rights: Access) -> None:
    try:
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, or not for us: nothing to allow
    try:
        if not path.is_dir():
            rights &= _OF_FILES
        if rights:
            rule = _PathBeneath(rights, file)
            system_call(
                "landlock_add_rule", ctypes.c_int(ruleset), ctypes.c_int(_RULE_PATH_BENEATH), ctypes.byref(rule), 0
            )
    finally:
        os.close(file)
