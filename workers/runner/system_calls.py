"""A filter of system calls: what no runner needs, and what code that broke out would like to have.

A filter in the kernel's classic BPF, as ``seccomp(2)`` takes it. It allows what it does not name: the libraries that
compute are too many and too different for a list of all that they may call.
"""

import ctypes
import errno
import os
import socket
from typing import Literal

from workers.runner.kernel import Machine
from workers.runner.kernel import system_call
from workers.runner.kernel import this_machine

_FORBIDDEN = (
    # looking into or changing other processes
    ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp"),
    # new namespaces and file systems; files by number instead of by path
    ("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "open_tree", "move_mount", "fsopen", "fsconfig"),
    ("fsmount", "fspick", "mount_setattr", "open_by_handle_at", "mknod", "mknodat"),
    # parts of the kernel that have been broken often and that computing does not need
    ("bpf", "userfaultfd", "io_uring_setup", "perf_event_open", "keyctl", "add_key", "request_key"),
    # the machine as a whole
    ("kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module", "reboot", "swapon", "swapoff"),
    ("acct", "quotactl", "settimeofday", "clock_settime", "clock_adjtime", "iopl", "ioperm"),
)
_NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag of clone(2)
_X32_CALLS = 0x40000000

_LOAD, _AND, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT, _SECOND_ARGUMENT = 0, 4, 16, 24
_SOCKET_TYPES = 0xF  # the rest of the argument are flags

Sockets = Literal["any", "local", "none"]
"""Which sockets a process may make: all; local ones for packets that it can name and listen on, but connect to nothing;
none. A network namespace does not keep a process from the sockets that lie in the file system, such as the broker's."""

_SET_MODE_FILTER = 1
_KEEP_SPECULATION = 1 << 2  # else some kernels make every instruction of the process slower

Instruction = tuple[int, int, int, int]
"""(code, jump if true, jump if false, value)."""


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_uint16),
        ("jump_true", ctypes.c_uint8),
        ("jump_false", ctypes.c_uint8),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("instructions", ctypes.POINTER(_Instruction)))


def _refuse(number: int) -> Instruction:
    return _RETURN, 0, 0, _ERRNO | number


def filter_program(machine: Machine, *, sockets: Sockets) -> list[Instruction]:
    """Return the filter for a processor."""
    calls = machine.calls
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_JUMP_EQUAL, 1, 0, machine.audit_arch),
        _refuse(errno.ENOSYS),  # another calling convention has other numbers
        (_LOAD, 0, 0, _NUMBER),
        (_JUMP_AT_LEAST, 0, 1, _X32_CALLS),
        _refuse(errno.ENOSYS),
    ]
    refused = {name: errno.EPERM for group in _FORBIDDEN for name in group}
    refused["clone3"] = errno.ENOSYS  # its flags lie in memory, where a filter cannot look; libraries then use clone
    if sockets != "any":
        refused["connect"] = errno.EACCES
    if sockets == "none":
        refused["socket"] = errno.EACCES
    for name, answer in refused.items():
        if name in calls:
            program += [(_JUMP_EQUAL, 0, 1, calls[name]), _refuse(answer)]
    if sockets == "local":
        program += _local_sockets(calls["socket"])
    program += [
        (_JUMP_EQUAL, 0, 3, calls["clone"]),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_ANY_BIT, 0, 1, _NEW_NAMESPACES),
        _refuse(errno.EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return program


def _local_sockets(call: int) -> list[Instruction]:
    """Refuse every socket but local ones for packets: what CUDA makes while it starts, and fails without."""
    return [
        (_JUMP_EQUAL, 0, 7, call),
        (_LOAD, 0, 0, _FIRST_ARGUMENT),
        (_JUMP_EQUAL, 0, 4, socket.AF_UNIX),
        (_LOAD, 0, 0, _SECOND_ARGUMENT),
        (_AND, 0, 0, _SOCKET_TYPES),
        (_JUMP_EQUAL, 0, 1, socket.SOCK_SEQPACKET),
        (_RETURN, 0, 0, _ALLOW),
        _refuse(errno.EACCES),
    ]


def filter_system_calls(*, sockets: Sockets) -> bool:
    """Install the filter for this thread and what it starts; ``prctl(PR_SET_NO_NEW_PRIVS)`` must have been called.

    Returns:
        Whether the kernel does it.
    """
    machine = this_machine()
    if machine is None or os.uname().sysname != "Linux":
        return False
    program = filter_program(machine, sockets=sockets)
    instructions = (_Instruction * len(program))(*(_Instruction(*instruction) for instruction in program))
    wrapped = _Program(len(program), instructions)
    for flags in (_KEEP_SPECULATION, 0):
        try:
            system_call("seccomp", ctypes.c_uint(_SET_MODE_FILTER), ctypes.c_uint(flags), ctypes.byref(wrapped))
        except OSError:
            continue
        return True
    return False
