"""What a runner is told when it starts."""

from dataclasses import dataclass

from workers.runner.operation import Role


@dataclass(frozen=True)
class RunnerOptions:
    """On the command line of the new process, which confines itself before it reads anything else."""

    role: Role
    registry: str
    workdir: str
    parent: int
    """Process id that the runner must not outlive."""
    cpu_seconds: int
    file_bytes: int
    processes: int
    isolate_network: bool
    isolate_files: bool
    filter_system_calls: bool
    readable: tuple[str, ...]
    """Files and directories that may be read beside those that every runner needs."""
    nvidia: bool = False
    """Whether the host has an NVIDIA GPU: CUDA does not start without a few rights that nothing else needs."""
