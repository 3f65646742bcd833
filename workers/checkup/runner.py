"""Runners: whether one starts, and which layers of its sandbox this kernel gives; device backends."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.errors import ParetuneError
from infra.settings import Settings
from profilers.registry import get_profiler
from profilers.registry import profiler_names
from workers.checkup.findings import Finding
from workers.runner.process import RunnerProcess

_LAYERS = {
    "limits": ("CPU time, file size, processes", ""),
    "dies_with_parent": ("ends with its worker", "This needs Linux."),
    "no_new_privileges": ("no new privileges", "This needs Linux."),
    "no_capabilities": ("no capabilities", "This needs Linux."),
    "own_files_only": (
        "sees only its own files (Landlock)",
        "This needs Linux 5.13 or newer with Landlock switched on (boot parameter lsm=landlock,...).",
    ),
    "filtered_system_calls": (
        "filtered system calls (seccomp)",
        "This needs Linux on x86-64 or 64-bit ARM with CONFIG_SECCOMP_FILTER.",
    ),
    "no_network": (
        "no network",
        "This needs root, user namespaces (sysctl user.max_user_namespaces), or the filter of system calls.",
    ),
}
_SWITCHES = {
    "own_files_only": "runner_isolate_files",
    "filtered_system_calls": "runner_filter_system_calls",
    "no_network": "runner_isolate_network",
}


def check_sandbox(settings: Settings) -> Iterator[Finding]:
    """Start a runner and ask it."""
    with tempfile.TemporaryDirectory() as directory:
        runner = RunnerProcess(settings, "compute", Path(directory) / "work")
        layers = runner.layers
        runner.close()
    for name, (meaning, need) in _LAYERS.items():
        switch = _SWITCHES.get(name)
        if layers.get(name):
            yield Finding(f"sandbox: {meaning}", "ok", "active")
        elif switch is not None and not getattr(settings, switch):
            hint = f"Unset PARETUNE_{switch.upper()}, unless a runner really needs this."
            yield Finding(f"sandbox: {meaning}", "warning", "switched off", hint)
        else:
            yield Finding(f"sandbox: {meaning}", "warning", "not active on this host", need)


def check_backends(_settings: Settings) -> Iterator[Finding]:
    """Import every profiler and ask whether it can measure here."""
    for name in profiler_names():
        try:
            capabilities = get_profiler(name).describe()
        except ParetuneError as error:
            yield Finding(f"profiler {name}", "problem", error.message, error.hint)
            continue
        if capabilities.available:
            yield Finding(f"profiler {name}", "ok", "can measure here")
        else:
            yield Finding(f"profiler {name}", "ok", f"not for this host: {capabilities.reason}")
