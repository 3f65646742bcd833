"""Root without root's powers: a runner of a service that runs as root, or as the only user of a user namespace."""

import ctypes

from workers.runner.kernel import PR_CAPBSET_DROP
from workers.runner.kernel import libc
from workers.runner.kernel import prctl

_READ_ANY_FILE = 2  # CAP_DAC_READ_SEARCH: the interpreter may lie in the home of somebody else
_PRIORITY = 23  # CAP_SYS_NICE: measurements may ask for it
_KEPT = (1 << _READ_ANY_FILE) | (1 << _PRIORITY)
_VERSION_3 = 0x20080522
_LAST = 63


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Set(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def drop_capabilities() -> bool:
    """Give up all capabilities but reading files and raising priorities, for this thread and what it starts.

    Returns:
        Whether none but those is left, in use or to be had again by starting a program.
    """
    for number in range(_LAST + 1):
        if not (1 << number) & _KEPT:
            prctl(PR_CAPBSET_DROP, number)  # fails without privileges, and for numbers that this kernel does not have
    header = _Header(_VERSION_3, 0)
    held = (_Set * 2)()
    if libc().capget(ctypes.byref(header), held) != 0:
        return False
    for index, part in enumerate(held):
        kept = _KEPT >> (32 * index) & 0xFFFFFFFF
        part.effective &= kept
        part.permitted &= kept
        part.inheritable = 0
    return bool(libc().capset(ctypes.byref(header), held) == 0)
