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
