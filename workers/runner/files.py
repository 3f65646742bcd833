"""Which files a runner needs: the interpreter and its libraries to read, its work directory to write, devices."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import infra
from workers.runner.landlock import CHANGE
from workers.runner.landlock import DEVICE
from workers.runner.landlock import LIST
from workers.runner.landlock import READ
from workers.runner.landlock import Access

_SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/opt", "/nix/store", "/gnu/store"),
    *("/proc", "/sys"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *("/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/etc/os-release", "/etc/mime.types", "/etc/OpenCL"),
    *("/etc/ssl/openssl.cnf", "/etc/pki/tls/openssl.cnf", "/etc/crypto-policies"),
)
"""Programs, libraries and facts about the machine. Nothing of ``/etc`` that may hold a secret, no home, no ``/tmp``."""
_DEVICES = ("null", "zero", "full", "random", "urandom", "nvidia*", "dri", "kfd", "dxg", "accel")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - semaphores of the C library lie there
_SEARCHED = ("LD_LIBRARY_PATH", "CUDA_HOME")


def allowed_files(workdir: Path, more: Iterable[Path] = (), *, nvidia: bool = False) -> dict[Access, list[Path]]:
    """Return what :func:`workers.runner.landlock.restrict` shall leave to this process.

    Args:
        workdir: The job's work directory.
        more: What the operator adds for reading.
        nvidia: Whether the host has an NVIDIA GPU.
    """
    root = Path(infra.__file__).parents[1]
    libraries = [Path(entry) for entry in (*sys.path, sys.prefix, sys.base_prefix) if entry]
    for name in _SEARCHED:
        libraries += [Path(entry) for entry in os.environ.get(name, "").split(os.pathsep) if entry]
    # A checkout may hold anything, even the service's home: only the packages in it are read.
    packages = [entry.parent for entry in root.glob("*/__init__.py")]
    readable = [path for path in libraries if path.absolute() != root] + packages
    devices = [path for pattern in _DEVICES for path in Path("/dev").glob(pattern)]
    return {
        READ: [*map(Path, _SYSTEM), *readable, *more],
        LIST: [root],
        CHANGE: [workdir, _SHARED_MEMORY],
        DEVICE | Access.READ_DIR: devices,
        Access.WRITE_FILE | Access.TRUNCATE: _names_of_threads() if nvidia else [],
    }


def _names_of_threads() -> list[Path]:
    """Where CUDA names its threads while it starts; it takes a refusal for a broken system (error 304).

    Models are also measured in processes that the runner starts, whose directories do not exist yet. Root gets its own
    only, because it could change the kernel's settings in ``/proc/sys``; for others the kernel sees to that.
    """
    return [Path("/proc/self/task") if os.geteuid() == 0 else Path("/proc")]
