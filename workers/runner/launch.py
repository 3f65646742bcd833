"""How a runner is started: which options, which environment."""

import os
import sys
from pathlib import Path

import infra
from infra.cgroup import cpu_limit
from infra.settings import Settings
from workers.runner.operation import Role
from workers.runner.options import RunnerOptions

_INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "NVIDIA_VISIBLE_DEVICES",
)
"""Everything else stays outside, above all the addresses and passwords of database, broker and artifact store."""

NVIDIA_CONTROL = Path("/dev/nvidiactl")
"""There where the host has an NVIDIA GPU."""


def runner_options(settings: Settings, role: Role, workdir: Path, registry: str) -> RunnerOptions:
    """Return the options of a runner that this process is about to start."""
    return RunnerOptions(
        role=role,
        registry=registry,
        workdir=str(workdir),
        parent=os.getpid(),
        cpu_seconds=settings.runner_cpu_seconds,
        file_bytes=settings.runner_file_bytes,
        processes=settings.runner_processes,
        isolate_network=settings.runner_isolate_network,
        isolate_files=settings.runner_isolate_files,
        filter_system_calls=settings.runner_filter_system_calls,
        readable=tuple(map(str, settings.runner_readable)),
        nvidia=NVIDIA_CONTROL.exists(),
    )


def runner_environment(role: Role, threads: int, private: Path) -> dict[str, str]:
    """Return the whole environment of a runner.

    How threads wait for each other is left to their library, which lets them look around for a while before they
    sleep. Nobody else loses by it: a runner is stopped while somebody measures. Where threads sleep at once, a training
    is much slower (``python -m benchmarks.training_step``).

    Args:
        role: A ``device`` runner computes with one thread.
        threads: Threads for a ``compute`` runner; 0 means one for every core that may be used.
        private: The runner's own directory: its home and its place for temporary files.
    """
    count = 1 if role == "device" else threads or usable_cores()
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    root = str(Path(infra.__file__).parents[1])
    environment |= {
        "PYTHONPATH": root,
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        "VIRTUAL_ENV": sys.prefix,
        "HOME": str(private),
        "TMPDIR": str(private),
        "XDG_RUNTIME_DIR": str(private),
        "XDG_CACHE_HOME": str(private),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "NO_COLOR": "1",
    }
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(count)
    return environment


def usable_cores() -> int:
    """Return how many cores this process may keep busy; more threads than its container's quota would be stopped."""
    cores, quota = len(os.sched_getaffinity(0)), cpu_limit()
    return cores if quota is None else max(1, min(cores, int(quota)))
